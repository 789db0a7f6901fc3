"""Closed classes of English words, which take no new members: they begin sentences and name nothing."""

from __future__ import annotations

from typing import Final

__all__ = ["CALENDAR_WORDS", "FUNCTION_WORDS", "PEOPLE", "TITLES"]


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Articles, pronouns, prepositions, conjunctions, auxiliaries, greetings.
FUNCTION_WORDS: Final = _set(
    """a about above after again all also although an and another any are as at be because been
    before below both but by can cannot could did do does don't each either else even every few
    finally first for from further given had has have he her here hers him his how however i i'd
    i'll i'm i've if in instead into is it it's its just last lastly later least less let let's many
    may me might mine more moreover most much must my neither next no nor not now of off ok okay on
    once one only or other our out over own per please same second shall she should since so some
    still such than thank thanks that that's the their them then there therefore these they this
    those though three through thus to too two under until up us very via was we were what when
    where whether which while who whom whose why will with within without would yes yet you you'd
    you'll you're you've your yours dear hello hi hey"""
)

#: Months and days of the week, which have a capital and name no thing.
CALENDAR_WORDS: Final = _set(
    """january february march april may june july august september october november december jan
    feb mar apr jun jul aug sep sept oct nov dec monday tuesday wednesday thursday friday saturday
    sunday mon tue wed thu fri sat sun"""
)

#: What somebody is to a business, before a name.
PEOPLE: Final = _set(
    "customer client contact owner user passenger guest patient caller member manager"
)

#: Before a surname.
TITLES: Final = _set("mr mrs ms miss dr prof")
