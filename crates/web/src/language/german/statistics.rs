//! Charts and their sentences.

pub const PHRASES: &[(&str, &str)] = &[
    ("Activity", "Verlauf"),
    ("Period", "Abschnitt"),
    ("The numbers", "Die Zahlen"),
    ("{}, in {}", "{}, Einheit: {}"),
    ("{}, the numbers", "{}, die Zahlen"),
    ("{}: counted since {} only.", "{}: erst seit {} gezählt."),
    ("attempts", "Versuche"),
    ("deliveries", "Zustellungen"),
    ("Our faults", "Unsere Fehler"),
    ("Half within", "Die Hälfte innerhalb"),
    ("95 % within", "95 % innerhalb"),
    ("Wait for the first attempt", "Wartezeit bis zum ersten Versuch"),
    (
        "Attempts: {}, of which {} delivered, {} failed and {} could not be made by our own fault.",
        "Versuche: {}. Davon zugestellt: {}, gescheitert: {}, durch unseren Fehler nicht zustande gekommen: {}.",
    ),
    (
        "Deliveries made: {}. Ended: {} delivered, {} failed, {} not sent.",
        "Angelegte Zustellungen: {}. Beendet: {} zugestellt, {} gescheitert, {} nicht gesendet.",
    ),
    (
        "Half of the first attempts began within {}, 95 % within {}.",
        "Die Hälfte der ersten Versuche begann innerhalb von {}, 95 % innerhalb von {}.",
    ),
    ("No first attempt was made.", "Es gab keinen ersten Versuch."),
];
