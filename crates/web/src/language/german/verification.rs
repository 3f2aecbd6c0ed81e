//! What is wrong with a signature: the German of `text.rs` of `domain/verification/`.

pub const PHRASES: &[(&str, &str)] = &[
    ("It verifies.", "Die Prüfung gelingt."),
    ("The signature fits. Only the time is refused.", "Die Signatur passt. Nur die Zeit wird abgelehnt."),
    (
        "The signature fits, but not in the form that a library reads.",
        "Die Signatur passt, aber nicht in der Form, die eine Bibliothek liest.",
    ),
    ("It does not verify, and the cause is known.", "Die Prüfung misslingt, und der Grund ist bekannt."),
    ("It does not verify.", "Die Prüfung misslingt."),
    ("Something is missing, so nothing could be compared.", "Etwas fehlt, deshalb konnte nichts verglichen werden."),
    ("Time", "Zeit"),
    ("Signature", "Signatur"),
    ("Cause", "Grund"),
    ("Your signature", "Ihre Signatur"),
    ("Take the body as the bytes that arrived", "Nehmen Sie den Inhalt als die Bytes, die ankamen"),
    ("Decode the secret to get the key", "Dekodieren Sie das Geheimnis zum Schlüssel"),
    (
        "Sign id, timestamp and body, with dots between them",
        "Signieren Sie Id, Zeitstempel und Inhalt, mit Punkten dazwischen",
    ),
    ("Compare “v1,” and base64", "Vergleichen Sie „v1,“ und Base64"),
    ("Read the three headers", "Lesen Sie die drei Header"),
    ("There is no secret.", "Es gibt kein Geheimnis."),
    (
        "The secret has no whsec_. Some libraries take it so; it was read as if it were there.",
        "Dem Geheimnis fehlt whsec_. Manche Bibliotheken nehmen es so; es wurde gelesen, als stünde es da.",
    ),
    (
        "Character {} of the secret is in no base64. Copy the secret again.",
        "Zeichen {} des Geheimnisses kommt in Base64 nicht vor. Kopieren Sie das Geheimnis noch einmal.",
    ),
    (
        "The secret has - or _ where base64 has + or /. Copy it again.",
        "Das Geheimnis hat - oder _, wo Base64 + oder / hat. Kopieren Sie es noch einmal.",
    ),
    ("After whsec_ comes nothing.", "Nach whsec_ kommt nichts."),
    (
        "After whsec_ come {} characters, which is no whole base64. Part of the secret is missing.",
        "Nach whsec_ kommen {} Zeichen; das ist kein ganzes Base64. Ein Teil des Geheimnisses fehlt.",
    ),
    (
        "The key has {} bytes. Standard Webhooks allows 24 to 64.",
        "Der Schlüssel hat {} Bytes. Standard Webhooks erlaubt 24 bis 64.",
    ),
    ("The secret has the right form.", "Das Geheimnis hat die richtige Form."),
    (
        "This is an API key. The secret of the endpoint begins with whsec_.",
        "Das ist ein API-Schlüssel. Das Geheimnis des Endpunkts beginnt mit whsec_.",
    ),
    (
        "This is a public key, which verifies v1a. v1 is verified with the secret, whsec_….",
        "Das ist ein öffentlicher Schlüssel, mit dem v1a geprüft wird. v1 wird mit dem Geheimnis geprüft, whsec_….",
    ),
    (
        "This is a private key, whsk_…. The secret of the endpoint begins with whsec_.",
        "Das ist ein privater Schlüssel, whsk_…. Das Geheimnis des Endpunkts beginnt mit whsec_.",
    ),
    (
        "This is a signature. The secret of the endpoint begins with whsec_.",
        "Das ist eine Signatur. Das Geheimnis des Endpunkts beginnt mit whsec_.",
    ),
    (
        "This is an id. The secret of the endpoint begins with whsec_.",
        "Das ist eine Id. Das Geheimnis des Endpunkts beginnt mit whsec_.",
    ),
    (
        "This is a URL. The secret of the endpoint begins with whsec_.",
        "Das ist eine URL. Das Geheimnis des Endpunkts beginnt mit whsec_.",
    ),
    (
        "Part of the secret is hidden. It is shown once: rotate it if nobody has kept it.",
        "Ein Teil des Geheimnisses ist verdeckt. Es wird einmal gezeigt: Wechseln Sie es, wenn niemand es aufbewahrt hat.",
    ),
    (
        "This is no secret of an endpoint: one begins with whsec_.",
        "Das ist kein Geheimnis eines Endpunkts: Ein solches beginnt mit whsec_.",
    ),
    (
        "There is white space or a line break around the secret. Remove it.",
        "Um das Geheimnis stehen Leerzeichen oder ein Zeilenumbruch. Entfernen Sie sie.",
    ),
    (
        "There are quotes around the secret. Remove them: not every reader of a file does.",
        "Um das Geheimnis stehen Anführungszeichen. Entfernen Sie sie: Nicht jedes Programm tut das.",
    ),
    (
        "There is other text around the secret, such as the name of a variable. Remove it.",
        "Um das Geheimnis steht anderer Text, etwa der Name einer Variablen. Entfernen Sie ihn.",
    ),
    ("The secret has whsec_ twice. Remove one.", "Das Geheimnis hat whsec_ zweimal. Entfernen Sie eines."),
    ("The header {} is missing.", "Der Header {} fehlt."),
    (
        "The header {} is missing. {} is there and was read in its place.",
        "Der Header {} fehlt. {} ist da und wurde an seiner Stelle gelesen.",
    ),
    (
        "The header {} is there several times. The first was read.",
        "Der Header {} ist mehrmals da. Der erste wurde gelesen.",
    ),
    ("The three headers are there.", "Die drei Header sind da."),
    (
        "webhook-timestamp is in milliseconds. It must be in seconds, as it arrived.",
        "webhook-timestamp ist in Millisekunden. Er muss in Sekunden sein, wie er ankam.",
    ),
    (
        "webhook-timestamp is a date. It must be the number of seconds, as it arrived.",
        "webhook-timestamp ist ein Datum. Er muss die Zahl der Sekunden sein, wie er ankam.",
    ),
    (
        "webhook-timestamp has a fraction. It must be a whole number, as it arrived.",
        "webhook-timestamp hat Nachkommastellen. Er muss eine ganze Zahl sein, wie er ankam.",
    ),
    ("webhook-timestamp is no number of seconds.", "webhook-timestamp ist keine Zahl von Sekunden."),
    (
        "The request is {} old. A library refuses one that is older than {}. If you verify it later than it arrived, \
         this is expected. Else the clock of the receiver is ahead.",
        "Die Anfrage ist {} alt. Eine Bibliothek lehnt ab, was älter als {} ist. Wenn Sie später prüfen, als sie \
         ankam, ist das zu erwarten. Sonst geht die Uhr des Empfängers vor.",
    ),
    (
        "The timestamp is {} in the future. A library refuses more than {}: the clock of the receiver is behind.",
        "Der Zeitstempel liegt {} in der Zukunft. Eine Bibliothek lehnt mehr als {} ab: Die Uhr des Empfängers \
         geht nach.",
    ),
    ("The timestamp is within {} of now.", "Der Zeitstempel liegt höchstens {} von jetzt entfernt."),
    ("{} s", "{} s"),
    ("{} minutes", "{} Minuten"),
    ("{} hours", "{} Stunden"),
    ("{} days", "{} Tage"),
    ("Signature {} {}", "Signatur {} {}"),
    (
        "Signature {} is of the scheme {}. Libraries pass it over, and so does this check.",
        "Signatur {} gehört zum Verfahren {}. Bibliotheken übergehen es, und diese Prüfung auch.",
    ),
    ("The signature fits secret, headers and body.", "Die Signatur passt zu Geheimnis, Headern und Inhalt."),
    (
        "Signature {} of {} fits secret, headers and body. One is enough.",
        "Signatur {} von {} passt zu Geheimnis, Headern und Inhalt. Eine genügt.",
    ),
    (
        "The signature does not fit secret, headers and body.",
        "Die Signatur passt nicht zu Geheimnis, Headern und Inhalt.",
    ),
    (
        "None of the {} signatures fits secret, headers and body.",
        "Keine der {} Signaturen passt zu Geheimnis, Headern und Inhalt.",
    ),
    ("The signature fits when {}.", "Die Signatur passt, wenn {}."),
    (
        "Headers and body are of two requests: webhook-id is {}, the body is of {}.",
        "Header und Inhalt stammen aus zwei Anfragen: webhook-id ist {}, der Inhalt gehört zu {}.",
    ),
    (
        "The body is no JSON. Events are: this one was cut or changed on its way.",
        "Der Inhalt ist kein JSON, wie es Ereignisse sind: Er wurde unterwegs gekürzt oder verändert.",
    ),
    (
        "The body is empty. Something read it before, and nothing was left.",
        "Der Inhalt ist leer. Etwas hat ihn vorher gelesen, und nichts blieb übrig.",
    ),
    (
        "None of {} usual mistakes explains it. Most often the secret is that of another endpoint, or of before a \
         rotation: compare its last four characters. Else the body is not the one that arrived.",
        "Keiner von {} üblichen Fehlern erklärt es. Meist ist das Geheimnis das eines anderen Endpunkts oder von vor einem \
         Wechsel: Vergleichen Sie die letzten vier Zeichen. Sonst ist der Inhalt nicht der, der ankam.",
    ),
    (
        "None of {} usual mistakes explains it, and the body is too large to try them all. Most often the secret is that \
         of another endpoint, or of before a rotation: compare its last four characters.",
        "Keiner von {} üblichen Fehlern erklärt es, und der Inhalt ist zu groß, um alle zu versuchen. Meist ist das \
         Geheimnis das eines anderen Endpunkts oder von vor einem Wechsel: Vergleichen Sie die letzten vier Zeichen.",
    ),
    (
        "Your code computed the right signature. Compare it with each signature of the header, not with the whole header.",
        "Ihr Programm hat die richtige Signatur berechnet. Vergleichen Sie sie mit jeder Signatur des Headers, nicht mit \
         dem ganzen Header.",
    ),
    ("Your code computed a signature for which {}.", "Ihr Programm hat eine Signatur berechnet, für die gilt: {}."),
    ("What your code computed {}", "Was Ihr Programm berechnet hat, {}"),
    (
        "None of the usual mistakes gives the signature that your code computed.",
        "Keiner der üblichen Fehler ergibt die Signatur, die Ihr Programm berechnet hat.",
    ),
    ("has no “v1,” in front.", "hat vorn kein „v1,“."),
    ("has another character than a comma after v1.", "hat nach v1 ein anderes Zeichen als ein Komma."),
    (
        "is in the form t=…,v1=…, which is that of another sender.",
        "hat die Form t=…,v1=…, die eines anderen Absenders.",
    ),
    (
        "is written in hexadecimal digits. It must be base64.",
        "ist in hexadezimalen Ziffern geschrieben. Es muss Base64 sein.",
    ),
    (
        "is written with - or _. It must be base64 with + and /.",
        "ist mit - oder _ geschrieben. Es muss Base64 mit + und / sein.",
    ),
    ("is no base64. It was cut or changed.", "ist kein Base64, also gekürzt oder verändert."),
    ("has 20 bytes: it is of SHA-1. It must be of SHA-256.", "hat 20 Bytes: SHA-1. Es muss SHA-256 sein."),
    ("has 64 bytes: it is of SHA-512. It must be of SHA-256.", "hat 64 Bytes: SHA-512. Es muss SHA-256 sein."),
    (
        "has {} bytes. HMAC with SHA-256 has 32: it was cut or encoded twice.",
        "hat {} Bytes. HMAC mit SHA-256 hat 32: gekürzt oder zweimal kodiert.",
    ),
    ("{}, and {}", "{}, und {}"),
    ("the key is that of secret {} of the other secrets", "der Schlüssel der von Geheimnis {} der anderen ist"),
    (
        "the key is the secret's text, whsec_ included, and not decoded",
        "der Schlüssel der Text des Geheimnisses ist, mit whsec_ und nicht dekodiert",
    ),
    (
        "the key is the text after whsec_, not decoded from base64",
        "der Schlüssel der Text nach whsec_ ist, nicht aus Base64 dekodiert",
    ),
    (
        "the key is the secret with what stands around it, not decoded",
        "der Schlüssel das Geheimnis mit dem ist, was darum steht, nicht dekodiert",
    ),
    (
        "the key is the secret read as hexadecimal digits, and not as base64",
        "der Schlüssel das Geheimnis als hexadezimale Ziffern ist und nicht als Base64",
    ),
    ("the key is decoded with whsec_ in front of it", "der Schlüssel mit whsec_ davor dekodiert ist"),
    (
        "the key is the secret's text with a line break at its end",
        "der Schlüssel der Text des Geheimnisses mit einem Zeilenumbruch am Ende ist",
    ),
    ("the key is empty: the secret was not set", "der Schlüssel leer ist: Das Geheimnis war nicht gesetzt"),
    ("only the body is signed, without id and timestamp", "nur der Inhalt signiert ist, ohne Id und Zeitstempel"),
    ("timestamp.body is signed, without the id", "Zeitstempel.Inhalt signiert ist, ohne die Id"),
    ("id.body is signed, without the timestamp", "Id.Inhalt signiert ist, ohne den Zeitstempel"),
    ("id and timestamp are exchanged", "Id und Zeitstempel vertauscht sind"),
    ("there are no dots between id, timestamp and body", "zwischen Id, Zeitstempel und Inhalt keine Punkte stehen"),
    ("there are colons in place of the dots", "Doppelpunkte statt der Punkte stehen"),
    ("there are line breaks in place of the dots", "Zeilenumbrüche statt der Punkte stehen"),
    ("the timestamp is in milliseconds", "der Zeitstempel in Millisekunden ist"),
    ("the body has no line break at its end", "der Inhalt am Ende keinen Zeilenumbruch hat"),
    ("the body has a line break at its end", "der Inhalt am Ende einen Zeilenumbruch hat"),
    ("the body has no white space around it", "um den Inhalt keine Leerzeichen stehen"),
    ("the body's lines end with LF and not with CRLF", "die Zeilen des Inhalts mit LF enden und nicht mit CRLF"),
    ("the body's lines end with CRLF and not with LF", "die Zeilen des Inhalts mit CRLF enden und nicht mit LF"),
    ("the body has no byte order mark in front", "der Inhalt vorn keine Bytereihenfolge-Marke hat"),
    ("the body has a byte order mark in front", "der Inhalt vorn eine Bytereihenfolge-Marke hat"),
    (
        "the body is taken out of the JSON string that it stands in",
        "der Inhalt aus der JSON-Zeichenkette genommen wird, in der er steht",
    ),
    ("the body is written as a JSON string", "der Inhalt als JSON-Zeichenkette geschrieben ist"),
    (
        "the body is taken out of the b'…' that Python printed",
        "der Inhalt aus dem b'…' genommen wird, das Python ausgegeben hat",
    ),
    (
        "the body is written as b'…', because Python put bytes into a text",
        "der Inhalt als b'…' geschrieben ist, weil Python Bytes in einen Text gesetzt hat",
    ),
    (
        "the body is the text [object Object], because JavaScript put an object into a text",
        "der Inhalt der Text [object Object] ist, weil JavaScript ein Objekt in einen Text gesetzt hat",
    ),
    (
        "the body is decoded from base64, as some gateways deliver it",
        "der Inhalt aus Base64 dekodiert wird, wie manche Gateways ihn liefern",
    ),
    ("the body is encoded in base64", "der Inhalt in Base64 kodiert ist"),
    (
        "the body is decoded from the form that something made of it",
        "der Inhalt aus dem Formular dekodiert wird, das etwas daraus gemacht hat",
    ),
    ("the body is read as UTF-8 and not as Latin-1", "der Inhalt als UTF-8 gelesen wird und nicht als Latin-1"),
    ("the body was read as Latin-1", "der Inhalt als Latin-1 gelesen wurde"),
    ("only the member data of the body is signed", "nur das Feld data des Inhalts signiert ist"),
    ("the body is empty: something had read it before", "der Inhalt leer ist: Etwas hatte ihn vorher gelesen"),
    (
        "the body is JSON that was parsed and written again with {}",
        "der Inhalt JSON ist, das gelesen und neu geschrieben wurde, mit {}",
    ),
    (
        "the body is JSON that was parsed and written again with {} and {}",
        "der Inhalt JSON ist, das gelesen und neu geschrieben wurde, mit {} und {}",
    ),
    (
        "the body is JSON that was parsed and written again with {}, {} and {}",
        "der Inhalt JSON ist, das gelesen und neu geschrieben wurde, mit {}, {} und {}",
    ),
    ("its keys sorted", "sortierten Schlüsseln"),
    ("its keys in the order of the sender", "Schlüsseln in der Reihenfolge des Absenders"),
    ("no white space", "null Leerzeichen"),
    ("a space after commas and colons, as of Python", "einem Leerzeichen nach Komma und Doppelpunkt, wie von Python"),
    ("lines that are indented by {} spaces", "Zeilen, die um {} Leerzeichen eingerückt sind"),
    ("no escapes", "Zeichen ohne Escapes"),
    ("\\u escapes for all but ASCII, as of Python", "\\u-Escapes für alles außer ASCII, wie von Python"),
    ("\\u and \\/ escapes, as of PHP", "\\u- und \\/-Escapes, wie von PHP"),
    ("escapes for <, > and &, as of Go and Rails", "Escapes für <, > und &, wie von Go und Rails"),
];
