"""The queue of wanted chunks against a plain list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.store.wants import Wants

steps = st.lists(
    st.one_of(
        st.tuples(st.just("want"), st.integers(0, 9), st.integers(0, 2)),
        st.tuples(st.just("drop"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("pop"), st.just(0), st.just(0)),
    )
)


@given(steps)
def test_it_is_a_priority_queue_with_promotion(actions):
    wants, model = Wants(), {}
    for ticket, (action, chunk, urgency) in enumerate(actions):
        if action == "want":
            wants.want(chunk, urgency, ticket)
            if chunk not in model or urgency < model[chunk][0]:
                model[chunk] = (urgency, ticket)
        elif action == "drop":
            wants.drop(chunk)
            model.pop(chunk, None)
        elif model:
            best = min(model, key=model.__getitem__)
            assert wants.pop() == (best, model.pop(best)[0])
        else:
            with pytest.raises(IndexError):
                wants.pop()
        assert wants.top() == (min(model.values()) if model else None)
        assert len(wants) == len(model)
        assert wants.urgency(chunk) == (model[chunk][0] if chunk in model else None)
