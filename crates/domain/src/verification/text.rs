//! A verification in English: one sentence for each finding, and what to write in five frameworks.
//!
//! A sentence is a template of ours with arguments, so that a page can put it into another language. Its arguments are
//! numbers, and names and ids that the request holds: never a secret or a body. They are not escaped.

use std::fmt;
use std::time::Duration;

use super::{
    BodyForm, ContentForm, Escapes, Finding, JsonForm, KeyForm, KeyOrder, OtherText, Recipe, SignatureFault, Spacing,
    Step, TimestampForm, Verdict, Wrapping,
};

/// A sentence or a part of one: a template, with `{}` for each argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub template: &'static str,
    pub arguments: Vec<Argument>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// A number, a name or an id: the same in each language.
    Text(String),
    Said(Said),
}

impl Said {
    const fn plain(template: &'static str) -> Self {
        Self { template, arguments: Vec::new() }
    }

    fn with(template: &'static str, arguments: impl IntoIterator<Item = Argument>) -> Self {
        Self { template, arguments: arguments.into_iter().collect() }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = self.template.split("{}");
        f.write_str(parts.next().unwrap_or_default())?;
        for (part, argument) in parts.zip(&self.arguments) {
            match argument {
                Argument::Text(text) => f.write_str(text)?,
                Argument::Said(said) => said.fmt(f)?,
            }
            f.write_str(part)?;
        }
        Ok(())
    }
}

fn text(value: impl ToString) -> Argument {
    Argument::Text(value.to_string())
}

/// What to change in the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Take the bytes that arrived.
    RawBody,
    /// Decode the secret.
    Key,
    /// Sign id, timestamp and body.
    Content,
    /// Compare base64.
    Encoding,
    /// Read the three headers.
    Headers,
}

/// The frameworks that advice is written for.
pub const FRAMEWORKS: [&str; 5] = ["Express", "Flask", "Rails", "Spring", "Axum"];

impl Advice {
    pub const fn title(self) -> &'static str {
        match self {
            Self::RawBody => "Take the body as the bytes that arrived",
            Self::Key => "Decode the secret to get the key",
            Self::Content => "Sign id, timestamp and body, with dots between them",
            Self::Encoding => "Compare “v1,” and base64",
            Self::Headers => "Read the three headers",
        }
    }

    /// A line of code for each of [`FRAMEWORKS`].
    pub const fn code(self) -> [&'static str; 5] {
        match self {
            Self::RawBody => [
                r#"app.post("/webhooks", express.raw({ type: "*/*" }), handler)  // before any express.json()"#,
                "body = request.get_data()  # not request.json, not request.form",
                "body = request.raw_post  # not params",
                "@RequestBody byte[] body  // not a class, not a Map",
                "body: Bytes  // the last argument, not Json<T>",
            ],
            Self::Key => [
                r#"const key = Buffer.from(secret.slice("whsec_".length), "base64")"#,
                r#"key = base64.b64decode(secret.removeprefix("whsec_"))"#,
                r#"key = Base64.strict_decode64(secret.delete_prefix("whsec_"))"#,
                r#"byte[] key = Base64.getDecoder().decode(secret.substring("whsec_".length()))"#,
                r#"let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap())?"#,
            ],
            Self::Content => [
                "const content = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), request.body])",
                r#"content = f"{id}.{timestamp}.".encode() + request.get_data()"#,
                r##"content = "#{id}.#{timestamp}.#{request.raw_post}""##,
                r#"mac.update((id + "." + timestamp + ".").getBytes(UTF_8)); mac.update(body)"#,
                r#"mac.update(format!("{id}.{timestamp}.").as_bytes()); mac.update(&body)"#,
            ],
            Self::Encoding => [
                r#""v1," + createHmac("sha256", key).update(content).digest("base64")"#,
                r#""v1," + base64.b64encode(hmac.digest(key, content, "sha256")).decode()"#,
                r##""v1,#{Base64.strict_encode64(OpenSSL::HMAC.digest("SHA256", key, content))}""##,
                r#""v1," + Base64.getEncoder().encodeToString(mac.doFinal())"#,
                r#"format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))"#,
            ],
            Self::Headers => [
                r#"request.headers["webhook-id"]"#,
                r#"request.headers.get("webhook-id")"#,
                r#"request.headers["webhook-id"]"#,
                r#"@RequestHeader("webhook-id") String id"#,
                r#"headers.get("webhook-id")"#,
            ],
        }
    }
}

pub const fn step(step: Step) -> &'static str {
    match step {
        Step::Secret => "Secret",
        Step::Headers => "Headers",
        Step::Timestamp => "Time",
        Step::Signatures => "Signature",
        Step::Cause => "Cause",
        Step::Computed => "Your signature",
    }
}

pub const fn headline(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Verifies => "It verifies.",
        Verdict::OnlyTime => "The signature fits. Only the time is refused.",
        Verdict::OnlyForm => "The signature fits, but not in the form that a library reads.",
        Verdict::CauseFound => "It does not verify, and the cause is known.",
        Verdict::Unexplained => "It does not verify.",
        Verdict::Incomplete => "Something is missing, so nothing could be compared.",
    }
}

pub fn advice(finding: &Finding) -> Option<Advice> {
    match finding {
        Finding::SignedAs(recipe) | Finding::ComputedAs(recipe) => Some(advice_on(*recipe)),
        Finding::HeaderMissing { .. } => Some(Advice::Headers),
        Finding::SignatureUnreadable {
            fault: SignatureFault::Hexadecimal | SignatureFault::Base64Url | SignatureFault::Separator,
            ..
        }
        | Finding::ComputedUnreadable(_) => Some(Advice::Encoding),
        Finding::BodyNotJson | Finding::BodyEmpty => Some(Advice::RawBody),
        _ => None,
    }
}

fn advice_on(recipe: Recipe) -> Advice {
    if recipe.body != BodyForm::AsGiven {
        Advice::RawBody
    } else if recipe.content != ContentForm::Standard {
        Advice::Content
    } else {
        Advice::Key
    }
}

pub fn sentence(finding: &Finding) -> Said {
    match finding {
        Finding::NoSecret => Said::plain("There is no secret."),
        Finding::SecretIsNot(other) => Said::plain(other_text(*other)),
        Finding::SecretWrapped(wrapping) => Said::plain(wrapped(*wrapping)),
        Finding::SecretWithoutPrefix => Said::plain(NO_PREFIX),
        Finding::SecretNotBase64 { position } => Said::with(NOT_BASE64, [text(position)]),
        Finding::SecretIsBase64Url => Said::plain("The secret has - or _ where base64 has + or /. Copy it again."),
        Finding::SecretCut { characters: 0 } => Said::plain("After whsec_ comes nothing."),
        Finding::SecretCut { characters } => Said::with(CUT, [text(characters)]),
        Finding::SecretLength { bytes } => Said::with(KEY_LENGTH, [text(bytes)]),
        Finding::SecretReadable => Said::plain("The secret has the right form."),
        Finding::HeaderMissing { name, instead: None } => Said::with("The header {} is missing.", [text(name)]),
        Finding::HeaderMissing { name, instead: Some(other) } => Said::with(OTHER_NAME, [text(name), text(other)]),
        Finding::HeaderRepeated { name } => Said::with(REPEATED, [text(name)]),
        Finding::HeadersThere => Said::plain("The three headers are there."),
        Finding::TimestampUnreadable(form) => Said::plain(timestamp(*form)),
        Finding::TimestampTooOld { age, tolerance } => Said::with(TOO_OLD, [length(*age), length(*tolerance)]),
        Finding::TimestampTooNew { ahead, tolerance } => Said::with(TOO_NEW, [length(*ahead), length(*tolerance)]),
        Finding::TimestampFits { tolerance } => Said::with("The timestamp is within {} of now.", [length(*tolerance)]),
        Finding::SignatureUnreadable { position, fault } => {
            Said::with("Signature {} {}", [text(position), Argument::Said(signature_fault(*fault))])
        }
        Finding::SignatureOfScheme { position, scheme } => Said::with(OTHER_SCHEME, [text(position), text(scheme)]),
        Finding::SignatureFits { of: 1, .. } => Said::plain("The signature fits secret, headers and body."),
        Finding::SignatureFits { position, of } => Said::with(ONE_FITS, [text(position), text(of)]),
        Finding::NoSignatureFits { of: 1 } => Said::plain("The signature does not fit secret, headers and body."),
        Finding::NoSignatureFits { of } => Said::with(NONE_FITS, [text(of)]),
        Finding::SignedAs(recipe) => Said::with("The signature fits when {}.", [recipe_words(*recipe)]),
        Finding::BodyOfOtherEvent { header, body } => Said::with(TWO_REQUESTS, [text(header), text(body)]),
        Finding::BodyNotJson => Said::plain("The body is no JSON. Events are: this one was cut or changed on its way."),
        Finding::BodyEmpty => Said::plain("The body is empty. Something read it before, and nothing was left."),
        Finding::NothingFits { tried, is_complete: true } => Said::with(NOTHING_FITS, [text(tried)]),
        Finding::NothingFits { tried, is_complete: false } => Said::with(NOTHING_FITS_YET, [text(tried)]),
        Finding::ComputedRight => Said::plain(COMPUTED_RIGHT),
        Finding::ComputedAs(recipe) => Said::with(COMPUTED_AS, [recipe_words(*recipe)]),
        Finding::ComputedUnreadable(fault) => {
            Said::with("What your code computed {}", [Argument::Said(signature_fault(*fault))])
        }
        Finding::ComputedUnexplained => Said::plain(COMPUTED_UNEXPLAINED),
    }
}

const NO_PREFIX: &str = "The secret has no whsec_. Some libraries take it so; it was read as if it were there.";
const NOT_BASE64: &str = "Character {} of the secret is in no base64. Copy the secret again.";
const CUT: &str = "After whsec_ come {} characters, which is no whole base64. Part of the secret is missing.";
const KEY_LENGTH: &str = "The key has {} bytes. Standard Webhooks allows 24 to 64.";
const OTHER_NAME: &str = "The header {} is missing. {} is there and was read in its place.";
const REPEATED: &str = "The header {} is there several times. The first was read.";
const TOO_OLD: &str = "The request is {} old. A library refuses one that is older than {}. If you verify it later than it \
                       arrived, this is expected. Else the clock of the receiver is ahead.";
const TOO_NEW: &str = "The timestamp is {} in the future. A library refuses more than {}: the clock of the receiver is \
                       behind.";
const OTHER_SCHEME: &str = "Signature {} is of the scheme {}. Libraries pass it over, and so does this check.";
const ONE_FITS: &str = "Signature {} of {} fits secret, headers and body. One is enough.";
const NONE_FITS: &str = "None of the {} signatures fits secret, headers and body.";
const TWO_REQUESTS: &str = "Headers and body are of two requests: webhook-id is {}, the body is of {}.";
const NOTHING_FITS: &str = "None of {} usual mistakes explains it. Most often the secret is that of another endpoint, or \
                            of before a rotation: compare its last four characters. Else the body is not the one that \
                            arrived.";
const NOTHING_FITS_YET: &str = "None of {} usual mistakes explains it, and the body is too large to try them all. Most \
                                often the secret is that of another endpoint, or of before a rotation: compare its last \
                                four characters.";
const COMPUTED_RIGHT: &str = "Your code computed the right signature. Compare it with each signature of the header, not \
                              with the whole header.";
const COMPUTED_AS: &str = "Your code computed a signature for which {}.";
const COMPUTED_UNEXPLAINED: &str = "None of the usual mistakes gives the signature that your code computed.";

const fn other_text(other: OtherText) -> &'static str {
    match other {
        OtherText::ApiKey => "This is an API key. The secret of the endpoint begins with whsec_.",
        OtherText::PublicKey => "This is a public key, which verifies v1a. v1 is verified with the secret, whsec_….",
        OtherText::PrivateKey => "This is a private key, whsk_…. The secret of the endpoint begins with whsec_.",
        OtherText::Signature => "This is a signature. The secret of the endpoint begins with whsec_.",
        OtherText::Id => "This is an id. The secret of the endpoint begins with whsec_.",
        OtherText::Url => "This is a URL. The secret of the endpoint begins with whsec_.",
        OtherText::Masked => "Part of the secret is hidden. It is shown once: rotate it if nobody has kept it.",
        OtherText::Unknown => "This is no secret of an endpoint: one begins with whsec_.",
    }
}

const fn wrapped(wrapping: Wrapping) -> &'static str {
    match wrapping {
        Wrapping::WhiteSpace => "There is white space or a line break around the secret. Remove it.",
        Wrapping::Quotes => "There are quotes around the secret. Remove them: not every reader of a file does.",
        Wrapping::Text => "There is other text around the secret, such as the name of a variable. Remove it.",
        Wrapping::SecondPrefix => "The secret has whsec_ twice. Remove one.",
    }
}

const fn timestamp(form: TimestampForm) -> &'static str {
    match form {
        TimestampForm::Milliseconds => "webhook-timestamp is in milliseconds. It must be in seconds, as it arrived.",
        TimestampForm::Date => "webhook-timestamp is a date. It must be the number of seconds, as it arrived.",
        TimestampForm::Fraction => "webhook-timestamp has a fraction. It must be a whole number, as it arrived.",
        TimestampForm::Other => "webhook-timestamp is no number of seconds.",
    }
}

/// The end of a sentence.
fn signature_fault(fault: SignatureFault) -> Said {
    Said::plain(match fault {
        SignatureFault::NoVersion => "has no “v1,” in front.",
        SignatureFault::Separator => "has another character than a comma after v1.",
        SignatureFault::OtherForm => "is in the form t=…,v1=…, which is that of another sender.",
        SignatureFault::Hexadecimal => "is written in hexadecimal digits. It must be base64.",
        SignatureFault::Base64Url => "is written with - or _. It must be base64 with + and /.",
        SignatureFault::NotBase64 => "is no base64. It was cut or changed.",
        SignatureFault::Length { bytes: 20 } => "has 20 bytes: it is of SHA-1. It must be of SHA-256.",
        SignatureFault::Length { bytes: 64 } => "has 64 bytes: it is of SHA-512. It must be of SHA-256.",
        SignatureFault::Length { bytes } => {
            return Said::with("has {} bytes. HMAC with SHA-256 has 32: it was cut or encoded twice.", [text(bytes)]);
        }
    })
}

/// What differs from the right way: a part of a sentence.
fn recipe_words(recipe: Recipe) -> Argument {
    let parts = [body(recipe.body), content(recipe.content).map(Said::plain), key(recipe.key)];
    // A search stops at two differences.
    let words = match parts.into_iter().flatten().collect::<Vec<_>>().as_slice() {
        [] => Said::plain("nothing is changed"),
        [one] => one.clone(),
        several => Said::with("{}, and {}", several.iter().take(2).cloned().map(Argument::Said)),
    };
    Argument::Said(words)
}

fn key(form: KeyForm) -> Option<Said> {
    Some(Said::plain(match form {
        KeyForm::Decoded => return None,
        KeyForm::Other(index) => {
            return Some(Said::with("the key is that of secret {} of the other secrets", [text(index + 1)]));
        }
        KeyForm::WholeText => "the key is the secret's text, whsec_ included, and not decoded",
        KeyForm::EncodedText => "the key is the text after whsec_, not decoded from base64",
        KeyForm::GivenText => "the key is the secret with what stands around it, not decoded",
        KeyForm::Hexadecimal => "the key is the secret read as hexadecimal digits, and not as base64",
        KeyForm::DecodedWithPrefix => "the key is decoded with whsec_ in front of it",
        KeyForm::WithLineBreak => "the key is the secret's text with a line break at its end",
        KeyForm::Empty => "the key is empty: the secret was not set",
    }))
}

const fn content(form: ContentForm) -> Option<&'static str> {
    match form {
        ContentForm::Standard => None,
        ContentForm::BodyOnly => Some("only the body is signed, without id and timestamp"),
        ContentForm::WithoutId => Some("timestamp.body is signed, without the id"),
        ContentForm::WithoutTimestamp => Some("id.body is signed, without the timestamp"),
        ContentForm::Exchanged => Some("id and timestamp are exchanged"),
        ContentForm::WithoutDots => Some("there are no dots between id, timestamp and body"),
        ContentForm::Colons => Some("there are colons in place of the dots"),
        ContentForm::Lines => Some("there are line breaks in place of the dots"),
        ContentForm::Milliseconds => Some("the timestamp is in milliseconds"),
    }
}

fn body(form: BodyForm) -> Option<Said> {
    Some(Said::plain(match form {
        BodyForm::AsGiven => return None,
        BodyForm::Json(form) => return Some(json(form)),
        BodyForm::WithoutFinalLineBreak => "the body has no line break at its end",
        BodyForm::WithFinalLineBreak => "the body has a line break at its end",
        BodyForm::WithoutSpaceAround => "the body has no white space around it",
        BodyForm::LineFeeds => "the body's lines end with LF and not with CRLF",
        BodyForm::CarriageReturns => "the body's lines end with CRLF and not with LF",
        BodyForm::WithoutByteOrderMark => "the body has no byte order mark in front",
        BodyForm::WithByteOrderMark => "the body has a byte order mark in front",
        BodyForm::StringContent => "the body is taken out of the JSON string that it stands in",
        BodyForm::AsString => "the body is written as a JSON string",
        BodyForm::PythonContent => "the body is taken out of the b'…' that Python printed",
        BodyForm::AsPython => "the body is written as b'…', because Python put bytes into a text",
        BodyForm::AsObjectText => "the body is the text [object Object], because JavaScript put an object into a text",
        BodyForm::Base64Content => "the body is decoded from base64, as some gateways deliver it",
        BodyForm::AsBase64 => "the body is encoded in base64",
        BodyForm::FormContent => "the body is decoded from the form that something made of it",
        BodyForm::Utf8Content => "the body is read as UTF-8 and not as Latin-1",
        BodyForm::AsLatin1 => "the body was read as Latin-1",
        BodyForm::Data => "only the member data of the body is signed",
        BodyForm::Empty => "the body is empty: something had read it before",
    }))
}

fn json(form: JsonForm) -> Said {
    let order = match form.order {
        KeyOrder::AsGiven => None,
        KeyOrder::Sorted => Some(Said::plain("its keys sorted")),
        KeyOrder::Envelope => Some(Said::plain("its keys in the order of the sender")),
    };
    let spacing = match form.spacing {
        Spacing::Compact => Said::plain("no white space"),
        Spacing::Spaced => Said::plain("a space after commas and colons, as of Python"),
        Spacing::Indented(spaces) => Said::with("lines that are indented by {} spaces", [text(spaces)]),
    };
    let escapes = match form.escapes {
        Escapes::AsGiven => None,
        Escapes::Plain => Some(Said::plain("no escapes")),
        Escapes::Ascii => Some(Said::plain("\\u escapes for all but ASCII, as of Python")),
        Escapes::AsciiAndSlashes => Some(Said::plain("\\u and \\/ escapes, as of PHP")),
        Escapes::Html => Some(Said::plain("escapes for <, > and &, as of Go and Rails")),
    };
    let forms: Vec<Argument> = [Some(spacing), order, escapes].into_iter().flatten().map(Argument::Said).collect();
    let template = match forms.len() {
        1 => "the body is JSON that was parsed and written again with {}",
        2 => "the body is JSON that was parsed and written again with {} and {}",
        _ => "the body is JSON that was parsed and written again with {}, {} and {}",
    };
    Said::with(template, forms)
}

/// About how long: the largest unit is enough.
fn length(duration: Duration) -> Argument {
    let seconds = duration.as_secs();
    let (count, template) = match seconds {
        0..120 => (seconds, "{} s"),
        120..7_200 => (seconds / 60, "{} minutes"),
        7_200..172_800 => (seconds / 3_600, "{} hours"),
        _ => (seconds / 86_400, "{} days"),
    };
    Argument::Said(Said::with(template, [text(count)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_names_what_differs() {
        let json = JsonForm { order: KeyOrder::Sorted, spacing: Spacing::Spaced, escapes: Escapes::Ascii };
        let recipe = Recipe { body: BodyForm::Json(json), key: KeyForm::WholeText, ..Recipe::STANDARD };
        assert_eq!(
            sentence(&Finding::SignedAs(recipe)).to_string(),
            "The signature fits when the body is JSON that was parsed and written again with a space after commas and \
             colons, as of Python, its keys sorted and \\u escapes for all but ASCII, as of Python, and the key is the \
             secret's text, whsec_ included, and not decoded."
        );
        assert_eq!(advice(&Finding::SignedAs(recipe)), Some(Advice::RawBody));
        let old = Finding::TimestampTooOld { age: Duration::from_secs(200_000), tolerance: Duration::from_secs(300) };
        assert!(
            sentence(&old)
                .to_string()
                .starts_with("The request is 2 days old. A library refuses one that is older than 5 minutes.")
        );
        let missing = Finding::HeaderMissing { name: "webhook-id", instead: Some("svix-id".to_owned()) };
        assert_eq!(
            sentence(&missing).to_string(),
            "The header webhook-id is missing. svix-id is there and was read in its place."
        );
    }
}
