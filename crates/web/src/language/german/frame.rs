//! The frame of the portal, its way in and out, and what a visitor sees of errors.

pub const PHRASES: &[(&str, &str)] = &[
    ("Endpoints", "Endpunkte"),
    ("Deliveries", "Zustellungen"),
    ("Event types", "Ereignistypen"),
    ("Sections", "Bereiche"),
    ("Skip to the content", "Zum Inhalt springen"),
    ("Test mode", "Testmodus"),
    ("Your session has ended", "Ihre Sitzung ist beendet"),
    (
        "A session lasts only for a while, and can be ended earlier. Open this page again from where you came.",
        "Eine Sitzung dauert nur eine Weile und kann vorher beendet werden. Öffnen Sie diese Seite noch einmal von dort, \
         woher Sie gekommen sind.",
    ),
    ("Nothing of the form was saved.", "Vom Formular wurde nichts gespeichert."),
    (
        "Your session has ended. What you typed stays here until the session is renewed.",
        "Ihre Sitzung ist beendet. Ihre Eingaben bleiben hier stehen, bis die Sitzung erneuert ist.",
    ),
    ("Go back", "Zurück"),
    ("This link no longer works", "Dieser Link funktioniert nicht mehr"),
    (
        "A link works for 5 minutes and only a few times. Open this page again from where you came.",
        "Ein Link funktioniert 5 Minuten lang und nur wenige Male. Öffnen Sie diese Seite noch einmal von dort, woher \
         Sie gekommen sind.",
    ),
    ("Open this page in a tab of its own", "Öffnen Sie diese Seite in einem eigenen Tab"),
    (
        "Your browser does not let a page inside another page remember that you are signed in. In a tab of its own it does.",
        "Ihr Browser erlaubt einer Seite innerhalb einer anderen nicht, Ihre Anmeldung zu behalten. In einem eigenen Tab \
         erlaubt er es.",
    ),
    ("Open in a new tab", "In neuem Tab öffnen"),
    (
        "Without script there is no button. Open the page again from where you came, in a new tab.",
        "Ohne Skript gibt es keine Schaltfläche. Öffnen Sie die Seite noch einmal von dort, woher Sie gekommen sind, in \
         einem neuen Tab.",
    ),
    ("Not now", "Nicht jetzt"),
    ("The pages do not answer now", "Die Seiten antworten gerade nicht"),
    (
        "Deliveries that were accepted wait in the store. Load the page again in a moment.",
        "Angenommene Zustellungen gehen nicht verloren. Laden Sie die Seite gleich noch einmal.",
    ),
    ("Refused", "Abgelehnt"),
    ("This request was refused", "Diese Anfrage wurde abgelehnt"),
    (
        "Only the pages of this server may send forms to it. Nothing was changed.",
        "Nur die Seiten dieses Servers dürfen ihm Formulare senden. Es wurde nichts geändert.",
    ),
    ("Too many requests", "Zu viele Anfragen"),
    ("Wait {} s, then load the page again.", "Warten Sie {} s und laden Sie die Seite dann noch einmal."),
    (
        "{} streams of pages are open already. This page asks by itself whether it has changed.",
        "{} Ströme von Seiten sind schon offen. Diese Seite fragt selbst, ob sie sich geändert hat.",
    ),
    ("Back to the start", "Zurück zum Anfang"),
    (
        "It may have been deleted, or be older than what is kept.",
        "Es wurde vielleicht gelöscht, oder seine Aufbewahrungszeit ist vorbei.",
    ),
    (
        "It was opened with fewer permissions. Ask for them where you came from.",
        "Sie wurde mit weniger Rechten geöffnet. Fragen Sie dort danach, woher Sie gekommen sind.",
    ),
    ("Nothing here has this id", "Nichts hier hat diese Kennung"),
    (
        "Nothing is lost. Deliveries that were accepted wait in the store and go on when it answers again.",
        "Es geht nichts verloren. Angenommene Zustellungen warten und gehen weiter, sobald der Speicher wieder antwortet.",
    ),
    ("Request {}", "Anfrage {}"),
    ("Something went wrong on our side", "Auf unserer Seite ist etwas schiefgegangen"),
    ("That cannot be read", "Das ist nicht lesbar"),
    ("That is not possible now", "Das ist jetzt nicht möglich"),
    ("That was refused", "Das wurde abgelehnt"),
    (
        "The server's log has the cause under the id of this request.",
        "Das Protokoll des Servers nennt den Grund unter der Kennung dieser Anfrage.",
    ),
    ("The store does not answer now", "Der Speicher antwortet gerade nicht"),
    ("These values were not understood:", "Diese Werte waren nicht verständlich:"),
    ("This session may not do that", "Diese Sitzung darf das nicht"),
    ("Try again", "Noch einmal versuchen"),
    ("A test is on its way.", "Ein Test ist unterwegs."),
    ("Copied", "Kopiert"),
    ("Created.", "Angelegt."),
    ("Deleted.", "Gelöscht."),
    (
        "Queued again. The retry is a delivery of its own.",
        "Wieder eingereiht. Die Wiederholung ist eine eigene Zustellung.",
    ),
    ("Saved.", "Gespeichert."),
    ("Select and copy it", "Bitte markieren und kopieren"),
    ("Started.", "Gestartet."),
    ("Stopped.", "Angehalten."),
    (
        "Switched off. New events are recorded as skipped; queued deliveries wait.",
        "Ausgeschaltet. Neue Ereignisse werden als übergangen vermerkt; was in der Warteschlange ist, wartet.",
    ),
    ("Switched on. What was waiting goes on.", "Eingeschaltet. Was gewartet hat, geht weiter."),
    (
        "The server has been upgraded. Load the page again.",
        "Der Server wurde aktualisiert. Laden Sie die Seite noch einmal.",
    ),
    ("You are signed out. Load the page again.", "Sie sind nicht mehr angemeldet. Laden Sie die Seite noch einmal."),
];
