"""Terms counted in compiled code, against scikit-learn's vectorisers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from tillmap.core.text import normalise
from tillmap.linear.counting import TermCounter

KNOWN = ["golden meadow butter 5%", "a bb ccc", "żółty ser", "x 😀 y", "butter butter a"]
TEXTS = st.lists(
    st.text(alphabet="ab utter5%ż😀\n", max_size=30) | st.sampled_from(KNOWN) | st.text(max_size=12), max_size=6
)


@pytest.mark.parametrize(("analyser", "ngrams"), [("char_wb", (2, 4)), ("char_wb", (1, 6)), ("word", (1, 2))])
@given(texts=TEXTS)
def test_terms_are_counted_as_scikit_learn_does(analyser, ngrams, texts):
    pattern = r"\S+" if analyser == "word" else None
    vectoriser = CountVectorizer(
        analyzer=analyser, ngram_range=ngrams, token_pattern=pattern, lowercase=False, dtype=np.float32
    ).fit(KNOWN)
    texts = [normalise(text) for text in texts] or [""]
    counts = TermCounter.of(vectoriser.vocabulary_, ngrams if analyser == "char_wb" else None).count(texts)
    expected = vectoriser.transform(texts)
    assert counts.dtype == expected.dtype and counts.shape == expected.shape
    assert counts.indptr.tolist() == expected.indptr.tolist()
    assert counts.indices.tolist() == expected.indices.tolist() and counts.data.tolist() == expected.data.tolist()
