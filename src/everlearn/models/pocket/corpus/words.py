"""The vocabulary that the families share: names, things, places, and small helpers to write them."""


def _words(text: str) -> list[str]:
    return text.split()


NAMES = _words(
    "Anna Ben Carl Dora Emma Finn Gina Hugo Iris Jack Kate Leo Mia Nina Owen Paul Rosa Sam Tina Uma Vera Will Zoe "
    "Tom Lucy Max Ella Noah Lily Adam Sara Eric Jane Mark Ruth Alex Dana Fred Gwen Hans Ivan Joan Karl Lena Mona "
    "Nick Olga Pia Ralf Sue Toby Wendy Yara Zack Amy Bob Cara Dan"
)
THINGS = _words(
    "apple ball book box brick button cake candle card chair clock coin cookie cup drum egg flag flower fork hat "
    "key kite lamp leaf lemon map marble mug nut orange pear pen pencil plate plum ring rock rope shell shirt sock "
    "spoon stamp star stick sticker stone ticket toy tree wheel bead bottle bag banana"
)
PETS = _words("cat dog bird fish rabbit horse hamster turtle snake mouse parrot goat")
COLORS = _words("red blue green yellow black white pink brown gray purple orange gold")
DRINKS = _words("tea coffee milk juice water soda cocoa lemonade")
SPORTS = _words("tennis soccer chess golf hockey rugby judo skating rowing boxing")
JOBS = _words("doctor teacher pilot baker farmer singer nurse driver cook painter lawyer judge")
FRUITS = _words("apple pear plum lemon orange banana grape cherry melon peach mango kiwi")
TOOLS = _words("hammer saw drill brush shovel rake wrench ladder axe knife")
MUSIC = _words("piano guitar violin flute drum harp trumpet cello")
CITIES = _words("Paris Rome Oslo Cairo Lima Tokyo Delhi Berlin Madrid Vienna Dublin Athens")
VEHICLES = _words("car bus train bike boat truck plane van taxi ship")
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
PLACES = _words("shop school park house garden farm library kitchen market office yard barn")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
NUMBER_WORDS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)


def plural(noun: str) -> str:
    """Return the plural of one of the nouns of this file."""
    irregular = {"leaf": "leaves", "mouse": "mice", "knife": "knives", "fish": "fish"}
    if noun in irregular:
        return irregular[noun]
    if noun.endswith(("x", "ch", "sh", "s")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def article(noun: str) -> str:
    """Return the noun with "a" or "an" before it."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def capital(text: str) -> str:
    """Return the text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def joined(words: list[str], last: str = "and") -> str:
    """Return "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
