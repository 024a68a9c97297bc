"""Simulated tweets: texts by seed, ids and times by the clock."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import orjson

from rxtweets._support.validation import choice

__all__ = ["DIFFERENT", "Names", "TweetSize", "Tweets", "snowflake", "stamp"]

TweetSize = Literal["small", "large"]
Names = Literal["both", "tweet", "post"]

SNOWFLAKE_EPOCH_MS = 1_288_834_974_657
DIFFERENT = 4096
"""Tweets until the texts repeat, with new ids."""

REPOST_VERBS = {"tweet": ("retweet",), "post": ("repost",), "both": ("retweet", "repost")}

ID, TIME = "\ue000", "\ue001"  # private use area: no phrase has them


class Tweets:
    """Frames of X's stream, without end: texts by seed, ids and times by the clock.

    Texts are in 17 languages and a dozen scripts, with emoji of several code points, hashtags,
    mentions and links. Entities give their places in code points, as X does. Of the tweets, 20 %
    are retweets, 10 % quotes and 17 % replies. Texts repeat after 4,096 tweets.

    Args:
        seed: the same seed gives the same texts in the same order.
        size: ``small`` is 1 KB a frame on average, with the fields that `sample_stream` requests;
            ``large`` is 2.5 KB, with context annotations and the authors' profiles.
        names: X renames fields (``retweet_count`` to ``repost_count``, ``tweets`` to ``posts``).
            ``both`` has each field under both names, ``tweet`` under the older one, ``post`` under
            the newer one.
        clock: seconds since 1970.

    Raises:
        ConfigurationError: the size or the names are unknown.
    """

    def __init__(
        self,
        seed: int = 0,
        size: TweetSize = "small",
        names: Names = "both",
        clock: Callable[[], float] = time.time,
    ) -> None:
        choice("size", size, get_args(TweetSize))
        choice("names", names, get_args(Names))
        self._writer = _Writer(random.Random(seed), size, names)
        self._clock = clock
        self._templates: list[bytes] = []
        self._last_id = 0
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[bytes]:
        """Yield frames, without line ends."""
        position = 0
        while True:
            yield from self.frames(position, 1)
            position += 1

    def frames(self, start: int, count: int) -> list[bytes]:
        """Return the frames from position ``start`` on, written now, without line ends.

        From any thread. No two frames have the same id.
        """
        with self._lock:
            self._make_templates(start + count)
            milliseconds = int(self._clock() * 1000)
            first = max(self._last_id + 1, (milliseconds - SNOWFLAKE_EPOCH_MS) << 22)
            self._last_id = first + count - 1
        written = stamp(milliseconds).encode()
        frames = []
        for offset in range(count):
            template = self._templates[(start + offset) % DIFFERENT]
            frames.append(template % {b"id": b"%d" % (first + offset), b"time": written})
        return frames

    def at(self, position: int, seconds: float) -> bytes:
        """Return the frame of a position, written at a time: the same at every call.

        From any thread.

        Args:
            position: in the stream, from 0.
            seconds: since 1970.
        """
        with self._lock:
            self._make_templates(position + 1)
        written = stamp(int(seconds * 1000)).encode()
        identifier = b"%d" % snowflake(seconds, position)
        return self._templates[position % DIFFERENT] % {b"id": identifier, b"time": written}

    def _make_templates(self, count: int) -> None:
        while len(self._templates) < min(count, DIFFERENT):
            self._templates.append(_template(self._writer.tweet(len(self._templates))))


def snowflake(seconds: float, sequence: int) -> int:
    """Return an id of that time, with the sequence number in its lower bits."""
    return ((int(seconds * 1000) - SNOWFLAKE_EPOCH_MS) << 22) | (sequence & 0x3FFFFF)


def stamp(milliseconds: int) -> str:
    """Return a time, given in milliseconds since 1970, as X writes it."""
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03}Z"


def _template(payload: dict[str, Any]) -> bytes:
    text = orjson.dumps(payload).replace(b"%", b"%%")
    return text.replace(TIME.encode(), b"%(time)b").replace(ID.encode(), b"%(id)b")


class _Writer:
    def __init__(self, rng: random.Random, size: TweetSize, names: Names) -> None:
        self._rng = rng
        self._large = size == "large"
        self._names = names

    def tweet(self, number: int) -> dict[str, Any]:
        rng = self._rng
        author = self._user(number)
        lang = rng.choice(list(PHRASES))
        text = _Text()
        kind = rng.choices(("", "retweeted", "quoted", "replied_to"), (53, 20, 10, 17))[0]
        users, other = [author], None
        if kind:
            other_author = self._user(number + 7)
            users.append(other_author)
            other = self._earlier_tweet(other_author)
        if kind == "retweeted" and other is not None:
            lang = other["lang"]
            text.add("RT").mention(users[1]).add(_shortened(f": {other['text']}"), space=False)
        else:
            if kind == "replied_to":
                text.mention(users[1])
            self._say(text, lang)
            if kind == "quoted" and other is not None:
                address = f"https://x.com/{users[1]['username']}/status/{other['id']}"
                text.link(_base36(rng, 10), address)
        data: dict[str, Any] = {
            "created_at": TIME,
            "author_id": author["id"],
            **self._both("edit_history_{}_ids", [ID]),
            "entities": text.entities,
            "id": ID,
            "lang": lang,
            "public_metrics": self._metrics(),
            "text": str(text),
        }
        if not text.entities:
            del data["entities"]
        if other is not None:
            data.update(self._both("referenced_{}s", [{"type": kind, "id": other["id"]}]))
        includes: dict[str, Any] = {"users": users}
        if self._large:
            self._enlarge(data)
            if other is not None:
                includes.update(self._both("{}s", [other]))
        return {"data": data, "includes": includes}

    def _say(self, text: _Text, lang: str) -> None:
        rng = self._rng
        for phrase in rng.sample(PHRASES[lang], min(rng.randint(2, 4), len(PHRASES[lang]))):
            text.add(phrase)
            if rng.random() < 0.25:
                text.add("\n", space=False)
        for _ in range(rng.choice((0, 0, 1, 2))):
            text.add(rng.choice(EMOJI))
        for _ in range(rng.choice((0, 0, 1, 1, 2))):
            text.hashtag(rng.choice(TOPICS))
        if rng.random() < 0.5:
            about = rng.choice(PHRASES[lang])
            text.link(_base36(rng, 10), f"https://example.com/news/{_base36(rng, 12)}", about)

    def _user(self, number: int) -> dict[str, Any]:
        rng = self._rng
        name, username = AUTHORS[number % len(AUTHORS)]
        user: dict[str, Any] = {
            "id": str(rng.randint(10**8, 2 * 10**18)),
            "name": name,
            "username": username,
        }
        if self._large:
            user |= {
                "created_at": f"20{rng.randint(10, 24)}-0{rng.randint(1, 9)}-11T09:26:53.000Z",
                "description": " · ".join(rng.sample(PHRASES["en"], 1) + rng.sample(TOPICS, 2)),
                "profile_image_url": f"https://example.com/{_base36(rng, 12)}/normal.jpg",
                "protected": False,
                "public_metrics": {
                    "followers_count": rng.randint(0, 90_000),
                    "following_count": rng.randint(0, 5_000),
                    "listed_count": rng.randint(0, 99),
                    **self._both("{}_count", rng.randint(1, 90_000)),
                },
                "verified": rng.random() < 0.1,
            }
        return user

    def _earlier_tweet(self, author: dict[str, Any]) -> dict[str, Any]:
        rng = self._rng
        identifier = str(rng.randint(1_700_000_000_000_000_000, 1_790_000_000_000_000_000))
        milliseconds = (int(identifier) >> 22) + SNOWFLAKE_EPOCH_MS
        lang = rng.choice(list(PHRASES))
        text = _Text()
        self._say(text, lang)
        return {
            "author_id": author["id"],
            "created_at": stamp(milliseconds),
            **self._both("edit_history_{}_ids", [identifier]),
            "id": identifier,
            "lang": lang,
            "public_metrics": self._metrics(),
            "text": str(text),
        }

    def _metrics(self) -> dict[str, int]:
        rng = self._rng
        reposts = int(rng.paretovariate(1)) - 1
        return {
            **{f"{verb}_count": reposts for verb in REPOST_VERBS[self._names]},
            "reply_count": int(rng.paretovariate(1.2)) - 1,
            "like_count": reposts * 4,
            "quote_count": reposts // 5,
            "bookmark_count": reposts // 3,
            "impression_count": reposts * 300 + rng.randint(0, 50),
        }

    def _both(self, name: str, value: object) -> dict[str, Any]:
        generations = ("tweet", "post") if self._names == "both" else (self._names,)
        return {name.format(generation): value for generation in generations}

    def _enlarge(self, data: dict[str, Any]) -> None:
        rng = self._rng
        topics = rng.sample(TOPICS, 2)
        data["context_annotations"] = [
            {
                "domain": {"id": "131", "name": "Unified topic", "description": "A topic"},
                "entity": {"id": str(rng.randint(10**17, 10**18)), "name": topic},
            }
            for topic in topics
        ]
        data["conversation_id"] = ID
        data["edit_controls"] = {
            "edits_remaining": 5,
            "is_edit_eligible": True,
            "editable_until": TIME,
        }
        data["possibly_sensitive"] = False
        data["reply_settings"] = "everyone"


class _Text:
    def __init__(self) -> None:
        self._text = ""
        self.entities: dict[str, list[dict[str, Any]]] = {}

    def __str__(self) -> str:
        return self._text

    def add(self, words: str, *, space: bool = True) -> _Text:
        if space and self._text and not self._text.endswith("\n"):
            self._text += " "
        self._text += words
        return self

    def hashtag(self, tag: str) -> None:
        self._entity("hashtags", f"#{tag}", {"tag": tag})

    def mention(self, user: dict[str, Any]) -> _Text:
        fields = {"username": user["username"], "id": user["id"]}
        self._entity("mentions", f"@{user['username']}", fields)
        return self

    def link(self, code: str, target: str, title: str = "") -> None:
        url = f"https://t.co/{code}"
        shown = target.removeprefix("https://")[:26] + "…"
        fields: dict[str, Any] = {"url": url, "expanded_url": target, "display_url": shown}
        if title:
            about = f"{title} – {shown}"
            fields |= {"status": 200, "title": title, "description": about, "unwound_url": target}
        self._entity("urls", url, fields)

    def _entity(self, kind: str, written: str, fields: dict[str, Any]) -> None:
        self.add(written)
        end = len(self._text)
        self.entities.setdefault(kind, []).append(
            {"start": end - len(written), "end": end, **fields}
        )


def _shortened(text: str, longest: int = 140) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _base36(rng: random.Random, length: int) -> str:
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=length))


PHRASES: dict[str, list[str]] = {}
for _line in """\
en  just missed the last train and honestly the walk home was worth it
en  can someone explain why the oven clock is always four minutes fast
en  new album on repeat since this morning
en  the match went to penalties and I cannot feel my hands
en  hot take: soup is a drink
en  finally fixed the flaky test, it was the clock, it is always the clock
es  hoy el café sabe a lunes pero igual me lo tomo
es  ¿alguien más se quedó sin luz en el barrio?
es  qué partido, señores, qué partido
es  mañana madrugo y sigo aquí viendo videos de gatos
pt  não acredito que já é novembro, cadê o ano
pt  a fila do pão às sete da manhã é um evento social
pt  chuva boa pra dormir e eu aqui trabalhando
fr  encore un retard sur la ligne, la routine
fr  ça sent déjà l’été à la fenêtre
fr  qui a mangé le dernier croissant, avouez
de  Straße gesperrt, Bus voll, Laune überraschend gut
de  heißer Tipp: der Kuchen beim Bäcker an der Ecke
de  nächste Woche wird alles anders, ganz sicher
tr  İstanbul’da ışıklar yanınca her şey güzel
tr  bugün hava çok güzel, dışarı çıkıyorum
in  macet lagi, sabar ya teman-teman
in  nasi goreng jam dua pagi memang beda rasanya
ja  電車が遅れてるけど空がきれいだから許す
ja  今日のお昼はカレーにしようかな
ja  推しの新曲、三回目で泣いた
ja  明日は早起きするぞ(たぶん)
ko  오늘 하늘 진짜 예쁘다
ko  퇴근하고 떡볶이 먹을 사람
ko  새 앨범 무한 반복 중입니다
zh  下雨天最适合在家喝茶看书
zh  這家店的排隊人潮真的太誇張了
ar  صباح الخير يا أصدقاء، القهوة جاهزة
ar  المباراة اليوم كانت رائعة بكل المقاييس
ar  الجو جميل والقلب أجمل
he  שבת שלום לכולם, הים היום פשוט חלום
he  מי עוד ער בשעה הזאת?
fa  باران که می‌بارد دلم هوای خانه می‌کند
fa  چای داغ و یک کتاب خوب
hi  आज की चाय कुछ ख़ास थी
hi  क्या मैच था यार, दिल जीत लिया
th  วันนี้ฝนตกทั้งวันเลย อยากกินอะไรร้อนๆ
th  เพลงใหม่เพราะมากกก
ru  опять понедельник, но кофе спасает
ru  кто ещё видел сегодня этот закат?
el  καλημέρα από το νησί, ο ήλιος βγήκε
art 𝓰𝓸𝓸𝓭 𝓿𝓲𝓫𝓮𝓼 only
art 𝗯𝗿𝗲𝗮𝗸𝗶𝗻𝗴: nothing happened
art Z̸a̷l̵g̶o̴ was here
""".splitlines():
    PHRASES.setdefault(_line[:4].rstrip(), []).append(_line[4:])

EMOJI = (
    *("😂", "😭", "🔥", "✨", "☕️", "⚽", "🫠", "🙏🏽", "🧑🏿‍🚀"),
    *("👩‍💻", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇯🇵", "🇧🇷", "❤️‍🔥", "🐈‍⬛"),
)

TOPICS = (
    "MondayMotivation", "nowplaying", "LaLiga", "Eurovision", "opensource", "python", "朝活", "猫",
    "대한민국", "新年快樂", "صباح_الخير", "München", "SãoPaulo", "คนรักแมว", "music", "art", "F1",
)  # fmt: skip

AUTHORS = (
    ("Ana Sofía 🌻", "ana_sofia"), ("たけし@写真垢", "takeshi_photo"), ("민지", "minji__97"),
    ("Dr. K. Müller", "drkmueller"), ("نور", "noor_w"), ("Luiz Fernando", "luizf_br"),
    ("the night bus", "thenightbus"), ("Chloé 🥐", "chloe_lit"), ("Иван", "ivan_dev"),
    ("नेहा", "neha_writes"), ("ploy 🐈", "ploycat"), ("𝕁𝕒𝕪", "jay_0x"), ("דנה", "dana_tlv"),
    ("City Weather", "cityweather24"), ("Ayşe", "ayse_k"), ("Rizky", "rizky_id"),
)  # fmt: skip
