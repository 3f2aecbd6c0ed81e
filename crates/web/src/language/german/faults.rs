//! Faults of fields and refusals, which come from below the pages. A `{}` stands for what varies.

pub const PHRASES: &[(&str, &str)] = &[
    ("The project has {} endpoints, the most it may have.", "Das Projekt hat {} Endpunkte, mehr darf es nicht haben."),
    (
        "The workspace has {} endpoints, the most it may have.",
        "Der Arbeitsbereich hat {} Endpunkte, mehr darf er nicht haben.",
    ),
    (
        "The workspace has reached its limit of {} stored bytes. Wait until old events are removed, or ask the operator for more.",
        "Der Arbeitsbereich hat seine Grenze von {} gespeicherten Bytes erreicht. Warten Sie, bis alte Ereignisse gelöscht sind, oder bitten Sie den Betreiber um mehr.",
    ),
    (
        "This server runs on a restored copy and sends nothing, so it accepts nothing that would be sent. Its operator ends that.",
        "Dieser Server läuft auf einer wiederhergestellten Kopie und sendet nichts. Darum nimmt er nichts an, was zu senden wäre. Der Betreiber kann das beenden.",
    ),
    ("A request with this Idempotency-Key is in progress.", "Dieselbe Anfrage wird gerade bearbeitet."),
    ("The form is larger than {} KB, or broke off.", "Das Formular ist größer als {} KB oder brach ab."),
    ("Something went wrong on our side.", "Auf unserer Seite ist etwas schiefgegangen."),
    ("must be at most {} headers", "darf höchstens {} Header enthalten"),
    (
        "A header has a name that is not 1 to 128 characters of {}.",
        "Ein Header hat einen Namen, der nicht aus 1 bis 128 Zeichen von {} besteht.",
    ),
    (
        "{} has a value that is not 1 to 1024 characters of visible ASCII, spaces and tabs",
        "{} hat einen Wert, der nicht aus 1 bis 1024 sichtbaren ASCII-Zeichen, Leerzeichen und Tabulatoren besteht",
    ),
    (
        "{} has a value that begins or ends with a space or a tab",
        "{} hat einen Wert, der mit einem Leerzeichen oder Tabulator beginnt oder endet",
    ),
    ("{} is reserved and cannot be set", "{} ist vergeben und kann nicht gesetzt werden"),
    (
        "{} occurs twice: names that differ only in case, - and _ are the same",
        "{} kommt zweimal vor: Namen, die sich nur in Groß- und Kleinschreibung, - und _ unterscheiden, sind gleich",
    ),
    ("{} has no stored value that could be kept", "{} hat keinen gespeicherten Wert, der bleiben könnte"),
    (
        "must be given anew, without [redacted], or removed with null when the scheme, host or port of url changes",
        "müssen neu angegeben oder entfernt werden, wenn sich Schema, Host oder Port der URL ändern",
    ),
    (
        "must be given anew or removed with null when the scheme, host or port of url changes",
        "muss neu angegeben oder entfernt werden, wenn sich Schema, Host oder Port der URL ändern",
    ),
    (
        "cannot be used: cannot read the certificate chain: it is not PEM",
        "ist unbrauchbar: Die Zertifikatskette ist nicht lesbar, weil sie kein PEM ist",
    ),
    (
        "cannot be used: the certificate chain contains no certificate",
        "ist unbrauchbar: Die Zertifikatskette enthält kein Zertifikat",
    ),
    (
        "cannot be used: the chain has more than {} certificates",
        "ist unbrauchbar: Die Kette hat mehr als {} Zertifikate",
    ),
    (
        "cannot be used: cannot read the first certificate of the chain",
        "ist unbrauchbar: Das erste Zertifikat der Kette ist nicht lesbar",
    ),
    (
        "cannot be used: cannot read the private key: it is not PEM",
        "ist unbrauchbar: Der private Schlüssel ist nicht lesbar, weil er kein PEM ist",
    ),
    (
        "cannot be used: there is no unencrypted private key (PKCS#8, PKCS#1 or SEC1)",
        "ist unbrauchbar: Es gibt keinen unverschlüsselten privaten Schlüssel (PKCS#8, PKCS#1 oder SEC1)",
    ),
    (
        "cannot be used: the private key's type is not supported: use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 bits or more",
        "ist unbrauchbar: Die Art des privaten Schlüssels wird nicht unterstützt. Verwenden Sie ECDSA P-256 oder P-384, Ed25519 oder RSA ab 2048 Bit",
    ),
    (
        "cannot be used: the private key does not belong to the first certificate of the chain",
        "ist unbrauchbar: Der private Schlüssel gehört nicht zum ersten Zertifikat der Kette",
    ),
    (
        "The header Origin held “null”. A frame with the attribute sandbox sends that: add allow-same-origin to it.",
        "Der Header Origin enthielt „null“. Das sendet ein Rahmen mit dem Attribut sandbox: Geben Sie ihm allow-same-origin.",
    ),
    (
        "The header Sec-Fetch-Site held “{}”; expected was “same-origin”. Another site made this request.",
        "Der Header Sec-Fetch-Site enthielt „{}“; erwartet war „same-origin“. Eine andere Website hat diese Anfrage gestellt.",
    ),
    (
        "The request has neither Sec-Fetch-Site nor Origin. A browser sends one of them.",
        "Die Anfrage hat weder Sec-Fetch-Site noch Origin. Ein Browser sendet einen davon.",
    ),
    (
        "The header Origin held “{}”; expected was “{}”. Behind a proxy, set --public-url to the address in the browser.",
        "Der Header Origin enthielt „{}“; erwartet war „{}“. Hinter einem Proxy muss --public-url die Adresse im Browser sein.",
    ),
    (
        "The header Origin held “{}”; expected was “{}”. The pages are meant for the address of --public-url: open them there, or change the setting.",
        "Der Header Origin enthielt „{}“; erwartet war „{}“. Die Seiten sind für die Adresse von --public-url gedacht: Öffnen Sie sie dort, oder ändern Sie die Einstellung.",
    ),
];
