"""What all commands of `tillmap` have in common."""

import typer
from typer.core import TyperCommand


class Command(TyperCommand):
    """Refuses an empty value, which is what a shell makes of a variable that is not set: `--out "$OUT"`.

    Only an option whose help says what "" means may be empty.
    """

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """The arguments that no option takes. Raises typer.BadParameter for an empty value."""
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        for param in self.params:
            value = given.get(param.name)
            empty = "" in value if isinstance(value, list | tuple) else value == ""
            if empty and '""' not in (getattr(param, "help", None) or ""):
                said = "it is empty; is a variable of your shell not set?"
                raise typer.BadParameter(said, ctx=ctx, param=param)  # type: ignore[arg-type]
        return super().parse_args(ctx, args)
