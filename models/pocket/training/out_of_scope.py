"""Everyday questions that the pocket model refuses, made of templates and nouns."""

from __future__ import annotations

import random


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PLACES = _words(
    """
    France Germany Japan Spain Italy China India Brazil Canada Mexico Egypt Kenya Norway Sweden
    Poland Greece Turkey Peru Chile Iceland Ireland Scotland Portugal Austria Hungary Finland
    Denmark Russia Australia Nigeria Morocco London Berlin Madrid Rome Tokyo Vienna Athens Oslo
    Dublin Lisbon Sydney Boston Chicago Texas Venice Prague
    """
)
FOODS = _words(
    """
    pasta rice soup bread pizza cake eggs fish chicken beef salad curry potatoes pancakes beans
    mushrooms noodles tofu cookies jam cheese sushi tacos lasagne risotto muffins porridge salmon
    steak dumplings pie
    """
)
ANIMALS = _words(
    """
    cat dog horse elephant tiger lion whale shark penguin eagle snake spider bee ant wolf bear
    rabbit mouse cow sheep goat duck owl frog dolphin giraffe zebra kangaroo octopus butterfly
    """
)
SPORTS = _words(
    """
    football tennis cricket rugby golf hockey basketball boxing cycling swimming chess skiing
    """
)
PEOPLE = _words(
    """
    Einstein Newton Mozart Shakespeare Cleopatra Napoleon Darwin Picasso Beethoven Lincoln Gandhi
    Galileo Churchill Plato Caesar Columbus Tesla Rembrandt Homer Dickens
    """
)
THINGS = _words(
    """
    car bike train plane ship bridge fridge phone camera watch clock lamp chair table sofa garden
    tree flower rose river mountain ocean moon sun star planet rocket volcano earthquake storm cloud
    rainbow desert forest island beach castle church museum school hospital bank shop market hotel
    farm factory battery engine magnet laser radio guitar piano violin drum book novel painting
    statue film song dance wedding birthday holiday party job salary mortgage tax insurance election
    president king queen war peace law court police army doctor dentist teacher nurse lawyer baker
    farmer shoe shirt coat hat dress jewel gold silver iron glass paper plastic oil gas coffee tea
    milk wine beer juice water sugar salt honey chocolate apple banana orange lemon tomato onion
    carrot love friendship happiness dream sleep health vitamin fever allergy heart brain bone blood
    skin muscle tooth yoga running diet weather climate energy gravity atom molecule electricity
    """
)
TEMPLATES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("What is the capital of {}?", PLACES, "other-geography"),
    ("how many people live in {}", PLACES, "other-geography"),
    ("Where is {}?", PLACES, "other-geography"),
    ("What should I visit in {}?", PLACES, "other-travel"),
    ("cheap flights to {}", PLACES, "other-travel"),
    ("How do I get to {}?", PLACES, "other-travel"),
    ("Who is the president of {}?", PLACES, "other-politics"),
    ("history of {}", PLACES, "other-history"),
    ("What is the weather in {}?", PLACES, "other-weather"),
    ("How do I cook {}?", FOODS, "other-cooking"),
    ("recipe for {}", FOODS, "other-cooking"),
    ("how long do i cook {}", FOODS, "other-cooking"),
    ("How long does a {} live?", ANIMALS, "other-animals"),
    ("what does a {} eat", ANIMALS, "other-animals"),
    ("How fast is a {}?", ANIMALS, "other-animals"),
    ("Tell me about the {}.", ANIMALS, "other-animals"),
    ("Who won the {} match?", SPORTS, "other-sports"),
    ("explain the rules of {}", SPORTS, "other-sports"),
    ("Who is the best at {}?", SPORTS, "other-sports"),
    ("Who was {}?", PEOPLE, "other-history"),
    ("when was {} born", PEOPLE, "other-history"),
    ("Write a poem about a {}.", THINGS, "other-writing"),
    ("write an essay about {}", THINGS, "other-writing"),
    ("Write a story about a {}.", THINGS, "other-writing"),
    ("How does a {} work?", THINGS, "other-unknown"),
    ("tell me about {}", THINGS, "other-unknown"),
    ("How do I make a {}?", THINGS, "other-unknown"),
    ("What is the best {}?", THINGS, "other-unknown"),
    ("how much does a {} cost", THINGS, "other-money"),
    ("where can i buy a {}", THINGS, "other-unknown"),
    ("What colour is a {}?", THINGS, "other-unknown"),
    ("Translate {} into French.", THINGS, "other-translation"),
    ("what is {} in spanish", THINGS, "other-translation"),
)


def out_of_scope(rng: random.Random) -> tuple[str, str]:
    """(question, id of the entry that answers it)."""
    template, nouns, entry_id = rng.choice(TEMPLATES)
    return template.format(rng.choice(nouns)), entry_id
