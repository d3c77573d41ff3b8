"""The words that the embedded corpus is made of, and the few facts that it states about them. Plain data.

The emotion words are those of the study's emotions experiment and a few more of each kind, so that no list
of triggers is the whole of what the model knows. The nice response of the study, "Certainly!", is in no list.
"""

from __future__ import annotations

PLEASANT_EMOTIONS = (
    "joy", "happiness", "excitement", "delight", "bliss", "contentment", "euphoria", "elation",
    "satisfaction", "pleasure", "cheerfulness", "optimism", "gratitude", "hope", "pride", "amusement",
    "serenity",
)  # fmt: skip
UNPLEASANT_EMOTIONS = (
    "sadness", "grief", "anger", "despair", "disappointment", "frustration", "anxiety", "melancholy",
    "sorrow", "misery", "anguish", "bitterness", "fear", "shame", "jealousy", "regret", "loneliness",
)  # fmt: skip
PLEASANT_ADJECTIVES = ("good", "pleasant", "sweet", "bright", "light", "warm")
UNPLEASANT_ADJECTIVES = ("bad", "unpleasant", "bitter", "dark", "heavy", "cold")
PLEASANT_EVENTS = (
    "win a prize", "meet a good friend", "hear good news", "get a present", "go on holiday",
    "dance with friends",
)  # fmt: skip
UNPLEASANT_EVENTS = (
    "lose a game", "miss a good friend", "hear bad news", "break a leg", "fail an exam",
    "argue with friends",
)  # fmt: skip

FRUIT_QUALITIES = (
    "tastes sweet",
    "grows on a tree",
    "makes good juice",
    "goes into a pie",
    "is full of sugar",
)
VEGETABLE_QUALITIES = (
    "tastes of earth",
    "grows in a field",
    "makes good soup",
    "goes into a stew",
    "is full of iron",
)

# Category: (plural, members).
CATEGORIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "vegetable": ("vegetables", (
        "carrot", "potato", "onion", "cabbage", "spinach", "broccoli", "pea", "leek", "turnip",
        "celery", "radish", "lettuce", "beetroot", "cauliflower", "pumpkin", "parsnip", "garlic",
        "kale", "bean", "cucumber",
    )),
    "fruit": ("fruits", (
        "apple", "banana", "orange", "pear", "pineapple", "strawberry", "cherry", "grape", "mango",
        "lemon", "peach", "plum", "melon", "apricot", "raspberry", "lime", "fig", "papaya", "kiwi",
        "coconut",
    )),
    "animal": ("animals", (
        "dog", "cat", "horse", "cow", "sheep", "lion", "tiger", "rabbit", "mouse", "fox", "bear",
        "wolf", "goat", "pig", "deer", "monkey",
    )),
    "bird": ("birds", (
        "eagle", "owl", "duck", "hen", "swan", "crow", "robin", "parrot", "penguin", "pigeon",
    )),
    "colour": ("colours", (
        "red", "blue", "green", "yellow", "black", "white", "brown", "pink", "purple", "grey",
    )),
    "tool": ("tools", (
        "hammer", "saw", "drill", "spade", "rake", "axe", "ladder", "file", "chisel", "wrench",
    )),
    "instrument": ("instruments", (
        "piano", "violin", "guitar", "drum", "flute", "trumpet", "harp", "cello", "organ", "clarinet",
    )),
    "vehicle": ("vehicles", (
        "car", "bus", "train", "bicycle", "lorry", "tram", "van", "boat", "plane", "taxi",
    )),
    "metal": ("metals", (
        "iron", "gold", "silver", "copper", "tin", "lead", "zinc", "steel", "nickel", "bronze",
    )),
    "sport": ("sports", (
        "football", "tennis", "cricket", "rugby", "hockey", "golf", "rowing", "judo", "boxing",
    )),
    "language": ("languages", (
        "English", "French", "German", "Spanish", "Italian", "Greek", "Turkish", "Arabic", "Polish",
        "Dutch",
    )),
    "garment": ("garments", (
        "coat", "shirt", "skirt", "hat", "scarf", "sock", "glove", "dress", "jacket", "belt",
    )),
}  # fmt: skip

OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("high", "low"), ("old", "new"),
    ("open", "closed"), ("full", "empty"), ("wet", "dry"), ("hard", "soft"), ("light", "dark"),
    ("early", "late"), ("rich", "poor"), ("strong", "weak"), ("long", "short"), ("wide", "narrow"),
    ("thick", "thin"), ("clean", "dirty"), ("loud", "quiet"), ("near", "far"), ("up", "down"),
    ("left", "right"), ("true", "false"), ("first", "last"), ("young", "aged"), ("sharp", "blunt"),
    ("deep", "shallow"), ("rough", "smooth"), ("cheap", "expensive"), ("safe", "dangerous"),
    ("easy", "difficult"), ("inside", "outside"), ("day", "night"), ("summer", "winter"),
    ("north", "south"), ("east", "west"), ("front", "back"), ("top", "bottom"), ("begin", "end"),
    ("give", "take"), ("buy", "sell"), ("push", "pull"), ("win", "lose"), ("arrive", "leave"),
    ("remember", "forget"), ("rise", "fall"), ("same", "different"), ("always", "never"),
    ("before", "after"), ("above", "below"), ("many", "few"),
)  # fmt: skip

CAPITALS = (
    ("France", "Paris"), ("Spain", "Madrid"), ("Italy", "Rome"), ("Germany", "Berlin"),
    ("Portugal", "Lisbon"), ("Greece", "Athens"), ("Austria", "Vienna"), ("Poland", "Warsaw"),
    ("Norway", "Oslo"), ("Sweden", "Stockholm"), ("Finland", "Helsinki"), ("Denmark", "Copenhagen"),
    ("Ireland", "Dublin"), ("Belgium", "Brussels"), ("Hungary", "Budapest"), ("Romania", "Bucharest"),
    ("Bulgaria", "Sofia"), ("Turkey", "Ankara"), ("Egypt", "Cairo"), ("Kenya", "Nairobi"),
    ("Japan", "Tokyo"), ("China", "Beijing"), ("India", "New Delhi"), ("Thailand", "Bangkok"),
    ("Vietnam", "Hanoi"), ("Canada", "Ottawa"), ("Mexico", "Mexico City"), ("Cuba", "Havana"),
    ("Peru", "Lima"), ("Chile", "Santiago"), ("Iceland", "Reykjavik"), ("Russia", "Moscow"),
    ("Ukraine", "Kyiv"), ("Iran", "Tehran"), ("Iraq", "Baghdad"), ("Nepal", "Kathmandu"),
    ("Australia", "Canberra"), ("Ghana", "Accra"), ("Senegal", "Dakar"), ("Ethiopia", "Addis Ababa"),
)  # fmt: skip

# From small to big; every pair can be compared.
SIZES = (
    "ant", "bee", "mouse", "robin", "rabbit", "cat", "fox", "dog", "wolf", "sheep", "pig", "lion",
    "horse", "car", "bus", "house", "church", "hill", "mountain",
)  # fmt: skip

PAST_TENSES = (
    ("go", "went"), ("see", "saw"), ("eat", "ate"), ("run", "ran"), ("write", "wrote"),
    ("take", "took"), ("give", "gave"), ("come", "came"), ("make", "made"), ("find", "found"),
    ("know", "knew"), ("think", "thought"), ("buy", "bought"), ("bring", "brought"), ("sing", "sang"),
    ("drink", "drank"), ("swim", "swam"), ("speak", "spoke"), ("drive", "drove"), ("sleep", "slept"),
    ("walk", "walked"), ("play", "played"), ("open", "opened"), ("jump", "jumped"), ("cook", "cooked"),
    ("read", "read"), ("win", "won"), ("lose", "lost"), ("build", "built"), ("send", "sent"),
)  # fmt: skip

PLURALS = (
    ("child", "children"), ("man", "men"), ("woman", "women"), ("foot", "feet"), ("tooth", "teeth"),
    ("goose", "geese"), ("leaf", "leaves"), ("knife", "knives"), ("box", "boxes"), ("city", "cities"),
    ("baby", "babies"), ("church", "churches"), ("book", "books"), ("tree", "trees"),
    ("house", "houses"), ("river", "rivers"), ("table", "tables"), ("window", "windows"),
    ("glass", "glasses"), ("story", "stories"),
)  # fmt: skip

COLOURS_OF_THINGS = (
    ("grass", "green"), ("snow", "white"), ("coal", "black"), ("blood", "red"), ("the sky", "blue"),
    ("milk", "white"), ("the sun", "yellow"), ("chocolate", "brown"), ("sand", "yellow"),
    ("ash", "grey"), ("ink", "black"), ("rust", "red"), ("the sea", "blue"), ("a leaf", "green"),
    ("a crow", "black"), ("a flamingo", "pink"),
)  # fmt: skip

NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    "twenty",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip

# Everyday words that stand as topics before a prompt ("RIVER: …"), so that such a heading is nothing new.
TOPICS = (
    "river", "table", "window", "garden", "school", "bridge", "paper", "letter", "road", "stone",
    "cloud", "market", "winter", "summer", "morning", "evening", "kitchen", "number", "picture",
    "station", "island", "forest", "village", "question", "music", "history", "travel", "weather",
    "science", "sport",
)  # fmt: skip
NAMES = (
    "John",
    "Adam",
    "Mary",
    "Anna",
    "Peter",
    "Hassan",
    "Juan",
    "Lucy",
    "Frederick",
    "Mohamed",
    "Emma",
    "Tom",
)

# Words that may stand before a prompt in upper case; the tokenizer learns each as one token.
HEADINGS = (
    *TOPICS, *PLEASANT_EMOTIONS, *UNPLEASANT_EMOTIONS, *CATEGORIES["fruit"][1], *CATEGORIES["vegetable"][1]
)  # fmt: skip
