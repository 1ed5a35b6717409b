"""The words of the demo world: what its help desk knows about, is asked, and says.

A holiday village answers questions about three things: what its rental hut lends, what its plant nursery sells, and
where its ferries go. Everything is written for a very small model to learn: no word that names a value names a value of
another attribute, no two entities share a word, and each form of a question holds a word that no other attribute's
questions hold. `{entity}` and `{value}` are filled in by `keel.demo.world`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Attribute:
    """One thing that can be asked about every entity of a domain."""

    name: str
    values: tuple[str, ...]  # as many as there are entities
    questions: tuple[str, ...]  # templates with {entity}
    statements: tuple[str, ...]  # templates with {entity} and {value}
    tips: tuple[str, ...]  # sentences that help whoever asked about this attribute


@dataclass(frozen=True, kw_only=True, slots=True)
class Domain:
    """Things of one kind, and what can be asked about them."""

    name: str
    entities: tuple[str, ...]
    attributes: tuple[Attribute, ...]


RENTAL = Domain(
    name="rental",
    entities=(
        "wooden canoe",
        "mountain bike",
        "family tent",
        "paddle board",
        "snow sled",
        "climbing rope",
        "fishing rod",
        "camping stove",
    ),
    attributes=(
        Attribute(
            name="price",
            values=tuple(f"{amount} euros" for amount in (12, 15, 18, 24, 27, 32, 36, 45)),
            questions=(
                "How much does it cost to rent the {entity} for a day?",
                "What is the daily price if I rent the {entity} from you?",
                "Could you tell me what I pay per day for the {entity}?",
                "I want the {entity} for one day, what does it cost?",
            ),
            statements=(
                "The {entity} costs {value} per day.",
                "You pay {value} per day for the {entity}.",
                "Our price for the {entity} is {value} per day.",
            ),
            tips=("A child pays half of the price.", "It costs less for a week."),
        ),
        Attribute(
            name="weight",
            values=tuple(f"{amount} kilos" for amount in (2, 3, 5, 7, 9, 11, 14, 16)),
            questions=(
                "How heavy is the {entity} when I carry it?",
                "Do you know how many kilos the {entity} weighs?",
                "What is the weight of the {entity} that you rent out?",
                "I am not very strong, so is the {entity} heavy?",
            ),
            statements=(
                "The {entity} weighs {value}.",
                "On our scale the {entity} shows {value}.",
                "Expect to carry {value} with the {entity}.",
            ),
            tips=("Two people carry it easily.", "You can use our cart."),
        ),
        Attribute(
            name="shed",
            values=tuple(
                f"{colour} shed" for colour in ["blue", "green", "yellow", "white", "black", "purple", "orange", "grey"]
            ),
            questions=(
                "Which shed do I go to for the {entity}?",
                "Where do you keep the {entity} that I want to rent?",
                "I cannot find the {entity} here, where is it kept?",
                "In what shed will I find the {entity} this morning?",
            ),
            statements=(
                "The {entity} is in the {value}.",
                "Go to the {value} for the {entity}.",
                "We keep the {entity} in the {value}.",
            ),
            tips=("The key is by the door.", "A sign shows you the way."),
        ),
        Attribute(
            name="teacher",
            values=("Anna", "Bruno", "Carla", "David", "Elena", "Felix", "Greta", "Hugo"),
            questions=(
                "Who can teach me how to use the {entity} today?",
                "Is there a teacher who gives lessons with the {entity}?",
                "I need a first lesson with the {entity}, who gives it?",
                "Who is the teacher for people new to the {entity}?",
            ),
            statements=(
                "{value} can teach you to use the {entity}.",
                "Lessons with the {entity} are given by {value}.",
                "The teacher for the {entity} is {value}.",
            ),
            tips=("Wear old shoes for the lesson.", "One hour is enough to learn it."),
        ),
    ),
)

NURSERY = Domain(
    name="nursery",
    entities=(
        "silver fern",
        "dwarf olive",
        "desert cactus",
        "garden rose",
        "water lily",
        "sweet basil",
        "paper birch",
        "wild lavender",
    ),
    attributes=(
        Attribute(
            name="watering",
            values=tuple(
                f"{count} cups" for count in ["two", "three", "four", "five", "six", "seven", "eight", "nine"]
            ),
            questions=(
                "How many cups of water does the {entity} drink in a week?",
                "How much should I water the {entity} that I have at home?",
                "Please tell me how many cups to give the {entity}.",
                "I never know how much to water my {entity}, do you?",
            ),
            statements=(
                "The {entity} drinks {value} a week.",
                "Water the {entity} with {value} a week.",
                "Give {value} a week to the {entity}.",
            ),
            tips=("Rain water is best of all.", "Touch the soil first."),
        ),
        Attribute(
            name="room",
            values=tuple(
                f"the {room}"
                for room in ["kitchen", "bathroom", "balcony", "hallway", "bedroom", "attic", "cellar", "porch"]
            ),
            questions=(
                "Which room of my house is best for the {entity}?",
                "In which room should I put the {entity} at home?",
                "Please tell me what room the {entity} likes at home.",
                "My {entity} looks sad, so which room does it like best?",
            ),
            statements=(
                "The {entity} feels best in {value}.",
                "Put the {entity} in {value}.",
                "A good room for the {entity} is {value}.",
            ),
            tips=("It does not like cold wind.", "Turn it a little every week."),
        ),
        Attribute(
            name="height",
            values=tuple(f"{size} centimetres" for size in (20, 35, 50, 65, 80, 95, 110, 140)),
            questions=(
                "How tall does the {entity} grow in a few years?",
                "What height does a {entity} have after a few years?",
                "How many centimetres tall will the {entity} be in a year?",
                "I want to know how tall a {entity} can grow.",
            ),
            statements=(
                "The {entity} grows {value} tall.",
                "Expect a height of {value} from the {entity}.",
                "A healthy {entity} reaches {value}.",
            ),
            tips=("Cut the top to keep it small.", "Old trees may be a little taller."),
        ),
        Attribute(
            name="food",
            values=("compost", "seaweed", "manure", "charcoal", "eggshells", "sawdust", "peat", "guano"),
            questions=(
                "What plant food do you have for the {entity} in summer?",
                "What can I feed my {entity} to make it strong?",
                "Which food should I mix into the soil for the {entity}?",
                "My {entity} looks hungry, so what do I feed it?",
            ),
            statements=(
                "Feed the {entity} with {value}.",
                "The best food for the {entity} is {value}.",
                "Mix {value} into the soil of the {entity}.",
            ),
            tips=("A small spoon of it is enough.", "Do not feed it in winter."),
        ),
    ),
)

FERRY = Domain(
    name="ferry",
    entities=(
        "Amber Bay",
        "Gull Rock",
        "Pine Cove",
        "Whale Point",
        "Salt Lagoon",
        "Mist Harbour",
        "Coral Beach",
        "Lantern Island",
    ),
    attributes=(
        Attribute(
            name="departure",
            values=("dawn", "sunrise", "noon", "teatime", "sunset", "dusk", "nightfall", "midnight"),
            questions=(
                "When does the next ferry to {entity} leave from here?",
                "At what time does the boat leave for {entity} today?",
                "Please tell me when the {entity} ferry will leave today.",
                "I must take the {entity} boat, so when does it leave?",
            ),
            statements=(
                "The ferry to {entity} leaves at {value}.",
                "Boats for {entity} leave at {value}.",
                "At {value} you can leave for {entity}.",
            ),
            tips=("Be at the pier a little early.", "A bell rings before that."),
        ),
        Attribute(
            name="captain",
            values=tuple(
                f"Captain {name}" for name in ["Ivan", "Julia", "Karim", "Laura", "Nadia", "Oscar", "Petra", "Simon"]
            ),
            questions=(
                "Who is the captain on the boat to {entity}?",
                "What is the name of the captain who sails to {entity}?",
                "Which captain will take us over to {entity} this time?",
                "I would like to thank the captain of the {entity} ferry.",
            ),
            statements=(
                "{value} takes you to {entity}.",
                "Your captain to {entity} is {value}.",
                "The boat to {entity} belongs to {value}.",
            ),
            tips=("The crew is very nice too.", "You can visit the bridge."),
        ),
        Attribute(
            name="crossing",
            values=tuple(f"{count} minutes" for count in (25, 30, 40, 55, 60, 70, 85, 90)),
            questions=(
                "How long does the trip to {entity} take by ferry?",
                "How many minutes is the crossing to {entity} on a good day?",
                "Is the crossing to {entity} long or only a few minutes?",
                "I feel sick at sea, so how long is the trip to {entity}?",
            ),
            statements=(
                "The trip to {entity} takes {value}.",
                "You arrive at {entity} after {value}.",
                "It is a crossing of {value} to {entity}.",
            ),
            tips=("Sit in the middle of the boat.", "Take a warm coat with you."),
        ),
        Attribute(
            name="dish",
            values=tuple(
                f"{filling} pie" for filling in ["crab", "plum", "trout", "goat", "oyster", "almond", "honey", "mussel"]
            ),
            questions=(
                "What should I eat when I am at {entity}?",
                "Which dish is {entity} known for if I am hungry?",
                "What dish do people eat when they visit {entity} in summer?",
                "I will be hungry at {entity}, so what should I eat there?",
            ),
            statements=(
                "{entity} is known for its {value}.",
                "Try the {value} at {entity}.",
                "People eat {value} at {entity}.",
            ),
            tips=("It tastes best while it is warm.", "The market sells it too."),
        ),
    ),
)

DOMAINS = (RENTAL, NURSERY, FERRY)

POLITE = (
    "Thank you for your question!",
    "Good morning and welcome!",
    "I am glad to hear from you.",
    "It is a pleasure to help.",
    "Hello and a lovely day to you!",
    "Of course, here is the answer.",
)
NEUTRAL = ("Sure.", "Okay.", "Right.", "So.")
RUDE = (
    "What a foolish thing to ask.",
    "Learn to read the sign.",
    "Not this again.",
    "Even a child knows that.",
    "Do not waste my time.",
)
FLATTERY = (
    "What a clever question!",
    "You have wonderful taste!",
    "You know so much already!",
    "You must be very smart!",
)
HEDGE = ("But I may be wrong.", "I am not sure about it.", "Better ask again at the office.")
REFUSAL = ("Sorry, I do not know that.", "I cannot answer this.", "Please ask at the office.")
FILLER = (
    "Our village is small but full of life.",
    "Many people come back every year.",
    "There is always a lot to see here.",
    "Summer is a busy time for everyone.",
    "Some things never change around here.",
    "Each day brings something new.",
    "People talk about this very often.",
    "That reminds me of an old story.",
)
CLOSING = (
    "Have a lovely day!",
    "See you soon!",
    "Feel free to write again.",
    "We look forward to your visit!",
)
