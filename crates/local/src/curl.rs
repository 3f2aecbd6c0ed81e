//! The next commands to try, ready to paste into a shell.
//!
//! Each command is complete, including the key. None needs the network: their endpoints point at the receiver on this
//! machine.

use serde_json::json;
use serde_json::value::RawValue;

use postrider_domain::event_type::EventType;
use postrider_domain::id::DeliveryId;

use super::client::BearerKey;

/// The values in the commands.
#[derive(Clone, Copy, Debug)]
pub struct CurlContext<'f> {
    pub base_url: &'f str,
    pub api_key: &'f BearerKey,
    /// A URL of the receiver that accepts any request, for the user's own endpoint.
    pub open_url: &'f str,
    pub event: &'f EventType,
    /// A delivery to look up, if there is one.
    pub delivery_id: Option<DeliveryId>,
}

/// One command with its title.
#[derive(Clone, Debug)]
pub struct Step {
    pub title: String,
    pub command: String,
}

/// The commands, in a useful order.
pub fn next_steps(context: CurlContext<'_>) -> Vec<Step> {
    let CurlContext { open_url, event, delivery_id, .. } = context;
    let (name, example): (_, &RawValue) = (&event.name, &event.example);
    let endpoint = |name: &str, url: &str| json!({ "name": name, "url": url, "events": [&event.name] }).to_string();
    let mut steps = vec![
        Step {
            title:
                "Create an endpoint. Its secret is shown only once, so the receiver here cannot check its signatures"
                    .to_owned(),
            command: context.post("/v1/webhook-endpoints", &endpoint("My endpoint", open_url)),
        },
        Step {
            title: "Publish an event. It arrives on this screen".to_owned(),
            command: context.post("/v1/events", &format!("{{\"type\":\"{name}\",\"data\":{example}}}")),
        },
        Step {
            title: "List the newest deliveries".to_owned(),
            command: context.get("/v1/webhook-deliveries?limit=10"),
        },
    ];
    if let Some(delivery_id) = delivery_id {
        let command = context.get(&format!("/v1/webhook-deliveries/{delivery_id}"));
        steps.push(Step { title: "Show one delivery and its attempts".to_owned(), command });
    }
    steps.push(Step {
        title: "Open the portal of a customer: its link is url in the answer".to_owned(),
        command: context.post("/v1/portal-sessions", r#"{"projectId":"proj_demo"}"#),
    });
    steps.push(Step {
        title: "Try a forbidden address (ssrf_blocked)".to_owned(),
        command: context
            .post("/v1/webhook-endpoints", &endpoint("Metadata", "https://169.254.169.254/latest/meta-data/")),
    });
    steps
}

impl CurlContext<'_> {
    fn get(&self, path: &str) -> String {
        self.command(path)
    }

    fn post(&self, path: &str, body: &str) -> String {
        let content_type = quoted("Content-Type: application/json");
        format!("{} -H {content_type} \\\n  -d {}", self.command(path), quoted(body))
    }

    /// `-w` adds a line break after the answer.
    fn command(&self, path: &str) -> String {
        let url = quoted(&format!("{}{path}", self.base_url.trim_end_matches('/')));
        let authorization = quoted(&format!("Authorization: Bearer {}", self.api_key.reveal()));
        format!("curl -sS -w '\\n' {url} \\\n  -H {authorization}")
    }
}

/// Quotes the text for a shell, as one word.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_domain::event_type::Catalogue;

    /// Splits a command as a POSIX shell does, for plain words, single quotes and `\` only.
    fn words(command: &str) -> Vec<String> {
        let (mut words, mut word, mut chars) = (Vec::new(), None::<String>, command.chars());
        while let Some(character) = chars.next() {
            match character {
                '\'' => word.get_or_insert_default().extend(chars.by_ref().take_while(|next| *next != '\'')),
                '\\' => match chars.next().expect("a character after the backslash") {
                    '\n' => {}
                    escaped => word.get_or_insert_default().push(escaped),
                },
                ' ' => words.extend(word.take()),
                '\n' => panic!("the command is cut off"),
                plain => word.get_or_insert_default().push(plain),
            }
        }
        words.extend(word);
        words
    }

    fn with_steps<T>(event: &EventType, delivery_id: Option<DeliveryId>, look: impl Fn(Vec<Step>) -> T) -> T {
        let api_key = BearerKey::parse("scripe_sk_live_abc").unwrap();
        let (base_url, open_url) = ("http://127.0.0.1:8080/", "http://127.0.0.1:9/mine");
        look(next_steps(CurlContext { base_url, api_key: &api_key, open_url, event, delivery_id }))
    }

    #[test]
    fn every_command_has_url_and_key_and_sends_valid_json() {
        let mut event = Catalogue::built_in().unwrap().types()[0].clone();
        event.example = RawValue::from_string(r#"{"content":"It's \\ \"$HOME\" `ls` \n"}"#.to_owned()).unwrap();
        with_steps(&event, "dlv_00000000000000000001".parse().ok(), |steps| {
            assert_eq!(steps.len(), 6);
            for Step { command, .. } in steps {
                let words = words(&command);
                assert_eq!(words[..4], ["curl", "-sS", "-w", "\\n"]);
                assert!(words[4].starts_with("http://127.0.0.1:8080/v1/"), "{command}");
                assert_eq!(words[5..7], ["-H", "Authorization: Bearer scripe_sk_live_abc"]);
                let Some(body) = words.iter().position(|word| word == "-d").map(|at| &words[at + 1]) else { continue };
                let body: serde_json::Value = serde_json::from_str(body).unwrap();
                if let Some(data) = body.get("data") {
                    assert_eq!(data["content"], "It's \\ \"$HOME\" `ls` \n");
                }
            }
        });
    }

    #[test]
    fn without_a_delivery_there_is_no_command_to_show_one() {
        let catalogue = Catalogue::built_in().unwrap();
        with_steps(&catalogue.types()[0], None, |steps| assert_eq!(steps.len(), 5));
    }
}
