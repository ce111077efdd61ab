"""The `rag` arm: an untuned language model that gets the nearest training rows as few-shot examples."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from tillmap.arms._llm import LocalModelArm, Tokens
from tillmap.arms.base import Need
from tillmap.config.blocks import LanguageModel, Layout, Section
from tillmap.llm.interface.prompting import GRADIENTGURUS_RAG, Recipe


class RagSettings(LanguageModel):
    examples: Annotated[int, Field(ge=0, le=100)]
    definitions: Annotated[int, Field(ge=0, le=100)]
    usual_price: bool
    layout: Layout


class Rag(LocalModelArm):
    """Retrieval-augmented generation with a language model on this machine."""

    name: ClassVar[str] = "rag"
    contest: ClassVar[Mapping[str, Tokens]] = {"ours": Tokens(0, 193, 10, 32), "gradientgurus": Tokens(0, 462, 37, 32)}
    Settings: ClassVar[type[Section]] = RagSettings
    reads: ClassVar[tuple[Need, ...]] = ("rows", "index", "base")

    def gradientgurus(self, settings: Any) -> tuple[Recipe, str]:
        return GRADIENTGURUS_RAG, "json"
