//! Signatures made by Python and Node, right and wrong, and what is said about each.

use super::*;
use crate::limits;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const ID: &str = "evt_00000000000000000000";
const AT: i64 = 1_614_265_330;
const BODY: &str = "{\"id\":\"evt_00000000000000000000\",\"type\":\"post.created\",\"timestamp\":\
    \"2026-05-15T08:21:00.000Z\",\"apiVersion\":\"2026-08-01\",\"workspaceId\":\"org_a1b2c3d4e5f6g7h8\",\
    \"projectId\":null,\"data\":{\"b\": 1.0,\"a\":\"<é>/\"}}";
/// Of `SECRET`, `ID`, `AT` and `BODY`, by Python's `hmac`.
const RIGHT: &str = "v1,rUg9JVTW9CysnvMGaAxeWwTQIXbZKkaSgRQgA8i4wuw=";

/// A request that verifies, to be changed.
struct Request {
    secret: String,
    others: Vec<&'static str>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    is_pasted: bool,
    computed: Option<String>,
    age_seconds: i64,
    tolerance: Duration,
}

impl Request {
    fn right() -> Self {
        let pairs = [(WEBHOOK_ID, ID), (WEBHOOK_TIMESTAMP, "1614265330"), (WEBHOOK_SIGNATURE, RIGHT)];
        Self {
            secret: SECRET.to_owned(),
            others: Vec::new(),
            headers: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            body: BODY.as_bytes().to_vec(),
            is_pasted: false,
            computed: None,
            age_seconds: 0,
            tolerance: limits::TIMESTAMP_TOLERANCE,
        }
    }

    fn signed(signature: &str) -> Self {
        Self::right().with(WEBHOOK_SIGNATURE, &format!("v1,{signature}"))
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.iter_mut().find(|(found, _)| found == name).unwrap().1 = value.to_owned();
        self
    }

    fn with_body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }

    fn with_secret(self, secret: impl Into<String>) -> Self {
        Self { secret: secret.into(), ..self }
    }

    fn computed(value: &str) -> Vec<Finding> {
        Self { computed: Some(value.to_owned()), ..Self::right() }.verify().of(Step::Computed)
    }

    fn verify(&self) -> Verification {
        let presented = Presented {
            secret: &self.secret,
            other_secrets: &self.others,
            headers: &self.headers,
            body: &self.body,
            is_pasted: self.is_pasted,
            computed: self.computed.as_deref(),
            tolerance: self.tolerance,
        };
        verify(&presented, Timestamp::from_millis((AT + self.age_seconds) * 1000))
    }

    /// The recipe that the signature of the header fits.
    fn cause(&self) -> Recipe {
        let verification = self.verify();
        assert_eq!(verification.verdict, Verdict::CauseFound, "{verification:?}");
        match verification.of(Step::Cause)[..] {
            [Finding::SignedAs(recipe)] => recipe,
            _ => panic!("{verification:?}"),
        }
    }
}

impl Verification {
    fn of(&self, step: Step) -> Vec<Finding> {
        self.findings.iter().filter(|finding| finding.step() == step).cloned().collect()
    }
}

fn key(key: KeyForm) -> Recipe {
    Recipe { key, ..Recipe::STANDARD }
}

fn content(content: ContentForm) -> Recipe {
    Recipe { content, ..Recipe::STANDARD }
}

fn body(body: BodyForm) -> Recipe {
    Recipe { body, ..Recipe::STANDARD }
}

const fn json(order: KeyOrder, spacing: Spacing, escapes: Escapes) -> BodyForm {
    BodyForm::Json(JsonForm { order, spacing, escapes })
}

#[test]
fn a_right_request_verifies_with_a_good_finding_for_each_step() {
    let verification = Request::right().verify();
    assert_eq!(verification.verdict, Verdict::Verifies);
    let good = [
        Finding::SecretReadable,
        Finding::HeadersThere,
        Finding::TimestampFits { tolerance: limits::TIMESTAMP_TOLERANCE },
        Finding::SignatureFits { position: 1, of: 1 },
    ];
    assert_eq!(verification.findings, good);
}

#[test]
fn the_published_vector_verifies() {
    let request = Request::right()
        .with(WEBHOOK_ID, "msg_p5jXN8AQM9LWM0D4loKWxJek")
        .with(WEBHOOK_SIGNATURE, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
        .with_body(r#"{"test": 2432232314}"#);
    assert_eq!(request.verify().verdict, Verdict::Verifies);
}

#[test]
fn one_signature_of_several_is_enough_and_is_named() {
    let verification = Request::right().with(WEBHOOK_SIGNATURE, &format!("v1a,AAAA v1,AAAA {RIGHT}")).verify();
    assert_eq!(
        verification.of(Step::Signatures),
        [
            Finding::SignatureOfScheme { position: 1, scheme: "v1a".to_owned() },
            Finding::SignatureUnreadable { position: 2, fault: SignatureFault::Length { bytes: 3 } },
            Finding::SignatureFits { position: 3, of: 3 },
        ]
    );
    let only_v1a = Request::right().with(WEBHOOK_SIGNATURE, "v1a,AAAA").verify();
    assert_eq!(only_v1a.verdict, Verdict::Incomplete);
    let none = Request::right().with(WEBHOOK_SIGNATURE, &format!("{RIGHT} {RIGHT}")).with_body("{}").verify();
    assert_eq!(none.of(Step::Signatures), [Finding::NoSignatureFits { of: 2 }]);
}

#[test]
fn the_distance_of_a_timestamp_is_told_beyond_five_minutes() {
    let at = |age_seconds| Request { age_seconds, ..Request::right() }.verify();
    assert_eq!((at(300).verdict, at(-300).verdict), (Verdict::Verifies, Verdict::Verifies));
    let old = Finding::TimestampTooOld { age: Duration::from_secs(301), tolerance: limits::TIMESTAMP_TOLERANCE };
    assert_eq!((at(301).verdict, at(301).of(Step::Timestamp)), (Verdict::OnlyTime, vec![old]));
    let new = Finding::TimestampTooNew { ahead: Duration::from_secs(7200), tolerance: limits::TIMESTAMP_TOLERANCE };
    assert_eq!((at(-7200).verdict, at(-7200).of(Step::Timestamp)), (Verdict::OnlyTime, vec![new]));
}

#[test]
fn a_tolerance_of_ones_own_is_used_and_named() {
    let mut request = Request { age_seconds: 600, ..Request::right() };
    assert_eq!(request.verify().verdict, Verdict::OnlyTime);
    request.tolerance = Duration::from_secs(600);
    assert_eq!(request.verify().verdict, Verdict::Verifies);
    request.age_seconds = 601;
    let old = Finding::TimestampTooOld { age: Duration::from_secs(601), tolerance: request.tolerance };
    assert_eq!(request.verify().of(Step::Timestamp), [old]);
}

#[test]
fn another_form_of_a_timestamp_is_named() {
    for (text, form) in [
        ("1614265330000", TimestampForm::Milliseconds),
        ("1614265330.0", TimestampForm::Fraction),
        ("2021-02-25T15:02:10Z", TimestampForm::Date),
        ("Thu, 25 Feb 2021 15:02:10 GMT", TimestampForm::Date),
        ("soon", TimestampForm::Other),
    ] {
        let verification = Request::right().with(WEBHOOK_TIMESTAMP, text).verify();
        assert_eq!(verification.of(Step::Timestamp), [Finding::TimestampUnreadable(form)], "{text}");
        assert_ne!(verification.verdict, Verdict::Verifies);
    }
    let far = Request::right().with(WEBHOOK_TIMESTAMP, &i64::MIN.to_string()).verify();
    assert!(matches!(far.of(Step::Timestamp)[..], [Finding::TimestampTooOld { .. }]));
}

#[test]
fn what_stands_in_place_of_a_secret_is_named() {
    for (text, other) in [
        ("scripe_sk_live_0123456789abcdefghijABCDEFGHIJ0123456789", OtherText::ApiKey),
        ("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=", OtherText::PublicKey),
        ("whsk_6Xb/dCcHpPea21PS1N9VY", OtherText::PrivateKey),
        (RIGHT, OtherText::Signature),
        ("whe_a1b2c3d4e5f6g7h8", OtherText::Id),
        ("https://a.example/hooks", OtherText::Url),
        ("whsec_••••••••LaSw", OtherText::Masked),
        ("whsec_MfKQ...LaSw", OtherText::Masked),
        ("hunter2", OtherText::Unknown),
    ] {
        let verification = Request::right().with_secret(text).verify();
        assert_eq!(verification.of(Step::Secret), [Finding::SecretIsNot(other)], "{text}");
        assert_eq!(verification.verdict, Verdict::Incomplete);
    }
    for text in ["", "  \n", "\"\""] {
        let verification = Request::right().with_secret(text).verify();
        assert_eq!(verification.of(Step::Secret), [Finding::NoSecret], "{text:?}");
    }
}

#[test]
fn a_secret_is_taken_out_of_what_stands_around_it() {
    let wrapped = |wrapping| Finding::SecretWrapped(wrapping);
    for (text, findings) in [
        (format!(" {SECRET}\n"), vec![wrapped(Wrapping::WhiteSpace)]),
        (format!("{SECRET}\\n"), vec![wrapped(Wrapping::WhiteSpace)]),
        (format!("\"{SECRET}\""), vec![wrapped(Wrapping::Quotes)]),
        (format!("'{SECRET}'\n"), vec![wrapped(Wrapping::WhiteSpace), wrapped(Wrapping::Quotes)]),
        (format!("WEBHOOK_SECRET={SECRET}"), vec![wrapped(Wrapping::Text)]),
        (format!("export S=\"{SECRET}\" # prod"), vec![wrapped(Wrapping::Text)]),
        (format!("whsec_{SECRET}"), vec![wrapped(Wrapping::SecondPrefix)]),
    ] {
        let verification = Request::right().with_secret(text.clone()).verify();
        assert_eq!(verification.of(Step::Secret), findings, "{text}");
        assert_eq!(verification.verdict, Verdict::OnlyForm, "{text}");
    }
    let bare = Request::right().with_secret(SECRET.replace("whsec_", "")).verify();
    assert_eq!((bare.verdict, bare.of(Step::Secret)), (Verdict::Verifies, vec![Finding::SecretWithoutPrefix]));
}

#[test]
fn a_secret_that_is_cut_or_mistyped_is_told_from_a_right_one() {
    let secret = |text: &str| Request::right().with_secret(text).verify().of(Step::Secret);
    assert_eq!(secret(&SECRET.replace('Q', "!")), [Finding::SecretNotBase64 { position: 10 }]);
    assert_eq!(secret(&SECRET[..SECRET.len() - 1]), [Finding::SecretCut { characters: 31 }]);
    assert_eq!(secret("whsec_"), [Finding::SecretCut { characters: 0 }]);
    assert_eq!(secret("whsec_MfKQ9r8G"), [Finding::SecretLength { bytes: 6 }]);
    let url_safe = OTHER_SECRET.replace('+', "-");
    let signed = Request::signed("4UeERa7W0WF7R8otTJWSseUsrAgwb3LGipLLZsYa5Fs=").with_secret(url_safe).verify();
    assert_eq!((signed.verdict, signed.of(Step::Secret)), (Verdict::OnlyForm, vec![Finding::SecretIsBase64Url]));
}

#[test]
fn a_missing_header_is_named_with_the_one_that_is_meant() {
    for name in [WEBHOOK_ID, WEBHOOK_TIMESTAMP, WEBHOOK_SIGNATURE] {
        let mut request = Request::right();
        request.headers.retain(|(found, _)| found != name);
        let verification = request.verify();
        assert_eq!(verification.of(Step::Headers), [Finding::HeaderMissing { name, instead: None }]);
        assert_eq!(verification.verdict, Verdict::Incomplete);
    }
    for other in ["HTTP_WEBHOOK_ID", "webhook_id", "X-Webhook-Id", "svix-id", "WebhookId"] {
        let mut request = Request::right();
        other.clone_into(&mut request.headers[0].0);
        let verification = request.verify();
        let missing = Finding::HeaderMissing { name: WEBHOOK_ID, instead: Some(other.to_owned()) };
        assert_eq!((verification.verdict, verification.of(Step::Headers)), (Verdict::OnlyForm, vec![missing]));
    }
    let mut upper = Request::right();
    upper.headers[0].0 = "Webhook-Id".to_owned();
    upper.headers.push((WEBHOOK_ID.to_owned(), "x".to_owned()));
    let verification = upper.verify();
    assert_eq!(verification.of(Step::Headers), [Finding::HeaderRepeated { name: WEBHOOK_ID }, Finding::HeadersThere]);
    assert_eq!(verification.verdict, Verdict::Verifies);
}

#[test]
fn a_signature_in_another_form_is_read_and_named() {
    const HEXADECIMAL: &str = "ad483d2554d6f42cac9ef306680c5e5b04d02176d92a469281142003c8b8c2ec";
    for (text, fault) in [
        (RIGHT[3..].to_owned(), SignatureFault::NoVersion),
        (format!("sha256={HEXADECIMAL}"), SignatureFault::Hexadecimal),
        (RIGHT.replace("v1,", "v1="), SignatureFault::Separator),
        (format!("t=1614265330,v1={HEXADECIMAL}"), SignatureFault::OtherForm),
        (format!("v1,{HEXADECIMAL}"), SignatureFault::Hexadecimal),
    ] {
        let verification = Request::right().with(WEBHOOK_SIGNATURE, &text).verify();
        let found = verification.of(Step::Signatures);
        let unreadable = Finding::SignatureUnreadable { position: 1, fault };
        assert_eq!(found, [unreadable, Finding::SignatureFits { position: 1, of: 1 }], "{text}");
        assert_eq!(verification.verdict, Verdict::OnlyForm);
    }
    for (text, fault) in [
        ("v1,rUg9JVTW9CysnvMG", SignatureFault::Length { bytes: 12 }),
        ("v1,V2FGLBLFiWVVMf8Q4d0IvE5gx1o=", SignatureFault::Length { bytes: 20 }),
        ("v1,rUg9…", SignatureFault::NotBase64),
    ] {
        let verification = Request::right().with(WEBHOOK_SIGNATURE, text).verify();
        assert_eq!(verification.of(Step::Signatures), [Finding::SignatureUnreadable { position: 1, fault }], "{text}");
        assert_eq!(verification.verdict, Verdict::Incomplete);
    }
}

/// Each signature was made by the wrong code in Python or Node.
#[test]
fn the_wrong_key_is_found() {
    for (signature, form) in [
        ("ymZWgNLWm89AuQcEnjTp58ELDquQPZSXdl9rV+WcK1c=", KeyForm::WholeText),
        ("M4eWoBUnIPfw0gDC5cLYXJBLLjFxQDjmcQydN052iTI=", KeyForm::EncodedText),
        ("C56hqbMV/5Tcd/k2lzPk5V1z7ccyG/GWxZ/kt+xfB3g=", KeyForm::DecodedWithPrefix),
        ("ycADJ6I73r9xqjcMYymRxnJHX3SeE/kC4cajD6h4uu0=", KeyForm::Empty),
    ] {
        assert_eq!(Request::signed(signature).cause(), key(form));
    }
    let digits = format!("whsec_{}", "0123456789abcdef".repeat(4));
    let hexadecimal = Request::signed("ewwNW7s1L0l7RkISItHryibuYK4PicHBaw9WsFTqUYQ=").with_secret(digits.as_str());
    assert_eq!(hexadecimal.cause(), key(KeyForm::Hexadecimal));
    let right = Request::signed("9oIMj9LdkSmMWru9tkiBt539Ho73WKeciQyz/t+lUUU=").with_secret(digits);
    assert_eq!(right.verify().verdict, Verdict::Verifies);
    let mut other = Request::signed("4UeERa7W0WF7R8otTJWSseUsrAgwb3LGipLLZsYa5Fs=");
    assert_eq!(other.verify().verdict, Verdict::Unexplained);
    other.others = vec!["no secret", OTHER_SECRET];
    assert_eq!(other.cause(), key(KeyForm::Other(1)));
}

#[test]
fn the_wrong_text_is_found() {
    for (signature, form) in [
        ("aA+ovFzThnP23+j4DfeSRNXhcUkUTOuSIYVt9hOCA98=", ContentForm::BodyOnly),
        ("e1UtJ0O48c1wH+5CiS7jDoB1Pk+5F7YXQ7OwHs3jPv8=", ContentForm::WithoutId),
        ("O+n/i6Iw6qul06DEdaVL0MZVfKcwMI/+/e9sbW9r0kc=", ContentForm::Exchanged),
        ("IMgkdH40oWnE/vYL0xgD7tRHcqEJ+dAkahJuxD0XCEQ=", ContentForm::WithoutDots),
    ] {
        assert_eq!(Request::signed(signature).cause(), content(form));
    }
    let both = Request::signed("IHxJHxyjgqf6MB29lj7MBiE8Qgbk+QjT90tBM2ByQMA=").cause();
    assert_eq!(both, Recipe { key: KeyForm::WholeText, ..content(ContentForm::BodyOnly) });
}

#[test]
fn what_was_made_of_the_body_is_found() {
    let spaced = "{\"b\":1.0,\"a\":\"<é>/\"}";
    let parsed = BODY.replace("{\"b\": 1.0,\"a\":\"<é>/\"}", spaced);
    // The publisher wrote a space, which nobody can know after parsing. Without it the rest is undone.
    let compact = "v1,".to_owned() + &sign(&parsed);
    let of_compact = |body: &str| Request::right().with(WEBHOOK_SIGNATURE, &compact).with_body(body).cause();
    let as_given = |spacing| json(KeyOrder::AsGiven, spacing, Escapes::AsGiven);
    let python = parsed.replace(',', ", ").replace("\":", "\": ");
    assert_eq!(of_compact(&python), body(as_given(Spacing::Compact)));
    let escaped = python.replace('é', "\\u00e9");
    assert_eq!(of_compact(&escaped), body(json(KeyOrder::AsGiven, Spacing::Compact, Escapes::Plain)));
    let sorted = "{\"apiVersion\":\"2026-08-01\",\"data\":{\"b\":1.0,\"a\":\"<é>/\"},\"id\":\"evt_00000000000000000000\",\
        \"projectId\":null,\"timestamp\":\"2026-05-15T08:21:00.000Z\",\"type\":\"post.created\",\
        \"workspaceId\":\"org_a1b2c3d4e5f6g7h8\"}";
    assert_eq!(of_compact(sorted), body(json(KeyOrder::Envelope, Spacing::Compact, Escapes::AsGiven)));

    let changed = |body: String| Request::right().with_body(body).cause();
    assert_eq!(changed(format!("{BODY}\n")), body(BodyForm::WithoutFinalLineBreak));
    assert_eq!(changed(format!("{BODY}\r\n")), body(BodyForm::WithoutFinalLineBreak));
    assert_eq!(changed(format!(" {BODY}\n\n")), body(BodyForm::WithoutSpaceAround));
    assert_eq!(changed(format!("\u{feff}{BODY}")), body(BodyForm::WithoutByteOrderMark));
    assert_eq!(changed(serde_json::to_string(BODY).unwrap()), body(BodyForm::StringContent));
    assert_eq!(changed(BODY.bytes().map(char::from).collect()), body(BodyForm::Utf8Content));
    let printed = BODY.replace('é', "\\xc3\\xa9");
    assert_eq!(changed(format!("b'{printed}'")), body(BodyForm::PythonContent));
}

fn sign(body: &str) -> String {
    use crate::secret::WebhookSecret;
    let key = WebhookSecret::parse(SECRET).unwrap().mac_key();
    crate::signing::signature_header([&key], ID, AT, body.as_bytes())["v1,".len()..].to_owned()
}

#[test]
fn line_breaks_count_unless_a_text_field_may_have_changed_them() {
    let lines = "{\r\n\"id\":\"evt_x\"}";
    let signed = || Request::signed(&sign(lines)).with_body(lines.replace('\r', ""));
    assert_eq!(signed().cause(), body(BodyForm::CarriageReturns));
    assert_eq!(Request { is_pasted: true, ..signed() }.verify().verdict, Verdict::Verifies);
}

#[test]
fn a_body_that_nothing_explains_is_told_apart_by_what_it_is() {
    let cause = |text: &str| {
        let verification = Request::right().with_body(text).verify();
        assert_eq!(verification.verdict, Verdict::Unexplained);
        verification.of(Step::Cause)[0].clone()
    };
    assert_eq!(cause(""), Finding::BodyEmpty);
    assert_eq!(cause(&BODY[..40]), Finding::BodyNotJson);
    let other = Finding::BodyOfOtherEvent { header: ID.to_owned(), body: "evt_11111111111111111111".to_owned() };
    assert_eq!(cause(&BODY.replace(ID, "evt_11111111111111111111")), other);
    assert!(matches!(cause(&BODY.replace("1.0", "1.1")), Finding::NothingFits { is_complete: true, .. }));
}

/// Each value was computed by the wrong code in Python or Node.
#[test]
fn what_the_receivers_code_computed_is_explained() {
    assert_eq!(Request::computed(RIGHT), [Finding::ComputedRight]);
    assert_eq!(Request::computed(&RIGHT[3..]), [Finding::ComputedRight]);
    assert_eq!(
        Request::computed("ad483d2554d6f42cac9ef306680c5e5b04d02176d92a469281142003c8b8c2ec"),
        [Finding::ComputedUnreadable(SignatureFault::Hexadecimal)]
    );
    assert_eq!(
        Request::computed("V2FGLBLFiWVVMf8Q4d0IvE5gx1o="),
        [Finding::ComputedUnreadable(SignatureFault::Length { bytes: 20 })]
    );
    let python = json(KeyOrder::AsGiven, Spacing::Spaced, Escapes::Ascii);
    for (computed, recipe) in [
        ("tbOZzclh7JQrVZpMU5vGTj3V+RDe9kuVWGmcEvVTMrQ=", body(python)),
        ("4J5vPaJxlGeKDF5bxv91mtIbIrEY2n0Ym1vtD3kOLGE=", body(BodyForm::AsPython)),
        ("8cTykvF4tdc3IoKNkCquAcYhO0o//GuiN4hqXd/Gh3o=", body(BodyForm::AsObjectText)),
        ("aA+ovFzThnP23+j4DfeSRNXhcUkUTOuSIYVt9hOCA98=", content(ContentForm::BodyOnly)),
        ("ymZWgNLWm89AuQcEnjTp58ELDquQPZSXdl9rV+WcK1c=", key(KeyForm::WholeText)),
    ] {
        assert_eq!(Request::computed(computed), [Finding::ComputedAs(recipe)]);
    }
    let unknown = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert_eq!(Request::computed(unknown), [Finding::ComputedUnexplained]);
}

#[test]
fn a_large_body_is_searched_within_the_limit() {
    let large = format!("{{\"id\":\"{ID}\",\"data\":\"{}\"}}", "x".repeat(limits::BODY_BYTES));
    let verification = Request::right().with_body(large).verify();
    match verification.of(Step::Cause)[..] {
        [Finding::NothingFits { tried, is_complete }] => {
            assert!(!is_complete && (100..500).contains(&tried), "{tried}");
        }
        _ => panic!("{verification:?}"),
    }
}

#[test]
fn hostile_input_is_judged_like_any_other() {
    for body in [&b"\xff\xfe\x00"[..], b"b'\\x", b"%", b"\"", "[".repeat(10_000).as_bytes(), b"{\"id\":1}"] {
        let verification = Request::right().with_body(body).verify();
        assert_eq!(verification.verdict, Verdict::Unexplained, "{verification:?}");
    }
    for secret in ["whsec_=", "whsec_whsec_whsec_", "whsec_\u{202e}é", "'", "\\n", "whsec_A", "é"] {
        assert_ne!(Request::right().with_secret(secret).verify().verdict, Verdict::Verifies, "{secret}");
    }
    for signature in ["v1,", ",", "v1a", "v1,\u{0}", "t=,v1=", "é v1,é"] {
        assert_ne!(Request::right().with(WEBHOOK_SIGNATURE, signature).verify().verdict, Verdict::Verifies);
    }
}

/// No sentence repeats a secret or a body, and each is a sentence.
#[test]
fn every_finding_is_put_into_words() {
    let requests = [
        Request::right(),
        Request::right().with_body("{}"),
        Request::right().with_secret(format!("\"{SECRET}\"")),
        Request::signed("ymZWgNLWm89AuQcEnjTp58ELDquQPZSXdl9rV+WcK1c="),
        Request::right().with_body(format!("{BODY}\n")),
        Request { computed: Some(RIGHT.to_owned()), age_seconds: 1_000, ..Request::right() },
    ];
    for request in requests {
        let verification = request.verify();
        assert!(text::headline(verification.verdict).ends_with('.'));
        for finding in &verification.findings {
            let sentence = text::sentence(finding).to_string();
            assert!(sentence.ends_with('.') && !sentence.contains("MfKQ") && !sentence.contains("org_"), "{sentence}");
            assert!(text::advice(finding).is_none() || finding.weight() == Weight::Fault, "{finding:?}");
        }
    }
}
