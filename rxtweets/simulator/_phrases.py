"""What simulated people write: phrases in many scripts, emoji of every make, names and topics."""

from __future__ import annotations

__all__ = ["EMOJI", "NAMES", "PHRASES", "TOPICS"]

PHRASES: dict[str, tuple[str, ...]] = {
    "en": (
        "just missed the last train and honestly the walk home was worth it",
        "can someone explain why the oven clock is always four minutes fast",
        "new album on repeat since this morning",
        "the match went to penalties and I cannot feel my hands",
        "hot take: soup is a drink",
        "finally fixed the flaky test, it was the clock, it is always the clock",
    ),
    "es": (
        "hoy el café sabe a lunes pero igual me lo tomo",
        "¿alguien más se quedó sin luz en el barrio?",
        "qué partido, señores, qué partido",
        "mañana madrugo y sigo aquí viendo videos de gatos",
    ),
    "pt": (
        "não acredito que já é novembro, cadê o ano",
        "a fila do pão às sete da manhã é um evento social",
        "chuva boa pra dormir e eu aqui trabalhando",
    ),
    "fr": (
        "encore un retard sur la ligne, la routine",
        "ça sent déjà l’été à la fenêtre",
        "qui a mangé le dernier croissant, avouez",
    ),
    "de": (
        "Straße gesperrt, Bus voll, Laune überraschend gut",
        "heißer Tipp: der Kuchen beim Bäcker an der Ecke",
        "nächste Woche wird alles anders, ganz sicher",
    ),
    "tr": (
        "İstanbul’da ışıklar yanınca her şey güzel",
        "bugün hava çok güzel, dışarı çıkıyorum",
    ),
    "in": (
        "macet lagi, sabar ya teman-teman",
        "nasi goreng jam dua pagi memang beda rasanya",
    ),
    "ja": (
        "電車が遅れてるけど空がきれいだから許す",
        "今日のお昼はカレーにしようかな",
        "推しの新曲、三回目で泣いた",
        "明日は早起きするぞ(たぶん)",
    ),
    "ko": (
        "오늘 하늘 진짜 예쁘다",
        "퇴근하고 떡볶이 먹을 사람",
        "새 앨범 무한 반복 중입니다",
    ),
    "zh": (
        "下雨天最适合在家喝茶看书",
        "這家店的排隊人潮真的太誇張了",
    ),
    "ar": (
        "صباح الخير يا أصدقاء، القهوة جاهزة",
        "المباراة اليوم كانت رائعة بكل المقاييس",
        "الجو جميل والقلب أجمل",
    ),
    "he": (
        "שבת שלום לכולם, הים היום פשוט חלום",
        "מי עוד ער בשעה הזאת?",
    ),
    "fa": (
        "باران که می‌بارد دلم هوای خانه می‌کند",
        "چای داغ و یک کتاب خوب",
    ),
    "hi": (
        "आज की चाय कुछ ख़ास थी",
        "क्या मैच था यार, दिल जीत लिया",
    ),
    "th": (
        "วันนี้ฝนตกทั้งวันเลย อยากกินอะไรร้อนๆ",
        "เพลงใหม่เพราะมากกก",
    ),
    "ru": (
        "опять понедельник, но кофе спасает",
        "кто ещё видел сегодня этот закат?",
    ),
    "el": ("καλημέρα από το νησί, ο ήλιος βγήκε",),
    "art": (
        "𝓰𝓸𝓸𝓭 𝓿𝓲𝓫𝓮𝓼 only",
        "𝗯𝗿𝗲𝗮𝗸𝗶𝗻𝗴: nothing happened",
        "Z̸a̷l̵g̶o̴ was here",
    ),
}

EMOJI = (
    *("😂", "😭", "🔥", "✨", "☕️", "⚽", "🫠", "🙏🏽", "🧑🏿‍🚀"),
    *("👩‍💻", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇯🇵", "🇧🇷", "❤️‍🔥", "🐈‍⬛"),
)

TOPICS = (
    "MondayMotivation", "nowplaying", "LaLiga", "Eurovision", "opensource", "python", "朝活", "猫",
    "대한민국", "新年快樂", "صباح_الخير", "München", "SãoPaulo", "คนรักแมว", "music", "art", "F1",
)  # fmt: skip

NAMES = (
    ("Ana Sofía 🌻", "ana_sofia"), ("たけし@写真垢", "takeshi_photo"), ("민지", "minji__97"),
    ("Dr. K. Müller", "drkmueller"), ("نور", "noor_w"), ("Luiz Fernando", "luizf_br"),
    ("the night bus", "thenightbus"), ("Chloé 🥐", "chloe_lit"), ("Иван", "ivan_dev"),
    ("नेहा", "neha_writes"), ("ploy 🐈", "ploycat"), ("𝕁𝕒𝕪", "jay_0x"), ("דנה", "dana_tlv"),
    ("City Weather", "cityweather24"), ("Ayşe", "ayse_k"), ("Rizky", "rizky_id"),
)  # fmt: skip
