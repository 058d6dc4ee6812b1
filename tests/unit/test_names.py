"""What the names mean that clients give to models."""

import pytest

from gateway.names import Named, named, parsed_aliases

ALIASES = {"gpt-4o": "default", "plain": "default:no-retrieval", "llama": "org/llama-8b"}


@pytest.mark.parametrize(
    ("requested", "meant"),
    [
        ("default", Named("default")),
        ("org/model", Named("org/model")),
        ("org/model:7b", Named("org/model:7b")),
        ("org/model:no-retrieval", Named("org/model", retrieval=False)),
        ("org/model:retrieval", Named("org/model", retrieval=True)),
        ("gpt-4o", Named("default")),
        ("gpt-4o:no-retrieval", Named("default", retrieval=False)),
        ("plain", Named("default", retrieval=False)),
        ("plain:retrieval", Named("default", retrieval=True)),
        ("llama:7b:no-retrieval", Named("llama:7b", retrieval=False)),
        ("", Named("")),
    ],
)
def test_a_name_means_a_model_and_its_ending_switches_retrieval(
    requested: str, meant: Named
) -> None:
    assert named(requested, ALIASES) == meant


@pytest.mark.parametrize(
    ("said", "aliases"),
    [
        ("", {}),
        (" , ", {}),
        ("a=b", {"a": "b"}),
        (" a = org/b:7b , c=default:no-retrieval ", {"a": "org/b:7b", "c": "default:no-retrieval"}),
        ("a=b=c", {"a": "b=c"}),
    ],
)
def test_aliases_are_pairs(said: str, aliases: dict[str, str]) -> None:
    assert parsed_aliases(said) == aliases


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("a", "not written as"),
        ("=b", "not written as"),
        ("a=", "not written as"),
        ("a=b,a=c", "meaning already"),
        ("default=b", "meaning already"),
        ("a=b,b=c", "another alias"),
        ("a=b:no-retrieval,b=c", "another alias"),
    ],
)
def test_what_could_mean_two_things_is_no_list_of_aliases(said: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parsed_aliases(said)
