//! The tables `[[source]]` of the settings file. They have no flags and no variables: a source has many settings, and
//! there may be several.

use std::collections::BTreeMap;
use std::path::PathBuf;

use postrider_domain::database_url::DatabaseUrl;
use postrider_domain::limits;
use postrider_domain::mode::Mode;
use postrider_domain::source::{FieldRule, ParkedFull, SourceKind, SourceName, SourceRules, SourceTerms};
#[cfg(feature = "brokers")]
use postrider_source::{BrokerUrl, NatsSettings, RabbitmqSettings};
use postrider_source::{Connection, OutboxSettings, OutboxTable, SourceSettings};

use super::setting_value::{bytes_of, message};

/// The members of one table, each as the text of a flag.
pub struct SourceTable(pub BTreeMap<String, String>);

impl SourceTable {
    /// # Errors
    /// When a setting is missing, unknown or invalid. The text begins with the name of the source, if it has one.
    pub fn read(self) -> Result<SourceSettings, String> {
        let name = self.0.get("name").cloned().unwrap_or_default();
        self.read_named().map_err(|fault| if name.is_empty() { fault } else { format!("source {name:?}: {fault}") })
    }

    fn read_named(mut self) -> Result<SourceSettings, String> {
        let name = self.required("name", SourceName::parse)?;
        let kind = self.required("kind", |text| {
            let kinds = SourceKind::ALL.map(SourceKind::as_str).join(", ");
            SourceKind::parse(text).ok_or_else(|| format!("must be one of {kinds}"))
        })?;
        #[cfg_attr(not(feature = "brokers"), expect(unused_mut, reason = "the other build adds to it"))]
        let mut connection = match kind {
            SourceKind::Outbox => Connection::Outbox(self.outbox()?),
            SourceKind::Nats | SourceKind::Rabbitmq => self.broker(kind)?,
        };
        let terms = self.terms(name, kind)?;
        #[cfg(feature = "brokers")]
        match &mut connection {
            Connection::Outbox(_) => {}
            Connection::Nats(nats) => {
                (nats.max_in_flight, nats.max_bytes_in_flight) = (terms.max_in_flight, terms.max_bytes_in_flight);
            }
            Connection::Rabbitmq(rabbitmq) => {
                let limits = (terms.max_in_flight, terms.max_bytes_in_flight);
                (rabbitmq.max_in_flight, rabbitmq.max_bytes_in_flight) = limits;
            }
        }
        match self.0.into_keys().next() {
            None => Ok(SourceSettings { terms, connection }),
            Some(unknown) => Err(format!("{unknown:?} is not a setting of a source of kind {}", kind.as_str())),
        }
    }

    fn terms(&mut self, name: SourceName, kind: SourceKind) -> Result<SourceTerms, String> {
        let workspace = self.required("workspace", non_empty)?;
        let mode = self.optional("mode", |text| match text {
            "live" => Ok(Mode::Live),
            "test" => Ok(Mode::Test),
            _ => Err("must be live or test".to_owned()),
        })?;
        let max_in_flight = self.optional("max_in_flight", number(1, limits::SOURCE_IN_FLIGHT_MAX as u64))?;
        let max_bytes = self.optional("max_bytes_in_flight", |text| {
            let (min, max) = (limits::SOURCE_BYTES_IN_FLIGHT_MIN as u64, limits::SOURCE_BYTES_IN_FLIGHT_MAX as u64);
            bytes_of(text)
                .filter(|bytes| (min..=max).contains(bytes))
                .ok_or_else(|| "must be a size from 1MB to 1000MB, like 32MB".to_owned())
        })?;
        let parked_max = self.optional("parked_max", number(1, limits::PARKED_MAX_MAX.into()))?;
        let parked_full = self.optional("parked_full", |text| {
            ParkedFull::parse(text).ok_or_else(|| "must be stop or drop-oldest".to_owned())
        })?;
        let whole = |number: Option<u64>| number.and_then(|number| usize::try_from(number).ok());
        Ok(SourceTerms {
            name,
            kind,
            workspace,
            mode: mode.unwrap_or(Mode::Live),
            rules: self.rules(kind)?,
            max_in_flight: whole(max_in_flight).unwrap_or(limits::SOURCE_IN_FLIGHT),
            max_bytes_in_flight: whole(max_bytes).unwrap_or(limits::SOURCE_BYTES_IN_FLIGHT),
            parked_max: parked_max.and_then(|max| u32::try_from(max).ok()).unwrap_or(limits::PARKED_MAX),
            parked_full: parked_full.unwrap_or(ParkedFull::Stop),
        })
    }

    fn rules(&mut self, kind: SourceKind) -> Result<SourceRules, String> {
        // The columns of an outbox say everything.
        if kind == SourceKind::Outbox {
            return Ok(SourceRules::with_id(FieldRule::MessageId));
        }
        let id = self.required("id", FieldRule::parse_id)?;
        if kind == SourceKind::Rabbitmq && id == FieldRule::Sequence {
            return Err(
                "id: RabbitMQ gives a message no sequence; use message_id, header:NAME or pointer:/PATH".to_owned()
            );
        }
        let default = SourceRules::with_id(id);
        Ok(SourceRules {
            event_type: self.optional("type", FieldRule::parse_text)?.unwrap_or(default.event_type),
            data: self.optional("data", FieldRule::parse_data)?.unwrap_or(default.data),
            project: self.optional("project", FieldRule::parse_text)?.unwrap_or(default.project),
            id: default.id,
        })
    }

    fn outbox(&mut self) -> Result<OutboxSettings, String> {
        let table = self.optional("table", OutboxTable::parse)?;
        Ok(OutboxSettings {
            url: self.required("url", |text| DatabaseUrl::parse(text).map_err(message))?,
            password_file: self.file("password_file")?,
            ca_file: self.file("ca_file")?,
            table: table.map_or_else(|| OutboxTable::parse(OutboxTable::DEFAULT), Ok)?,
        })
    }

    #[cfg(not(feature = "brokers"))]
    #[expect(clippy::unused_self, reason = "the other build reads the table")]
    fn broker(&mut self, _kind: SourceKind) -> Result<Connection, String> {
        Err("kind: this binary was built without the feature `brokers`".to_owned())
    }

    #[cfg(feature = "brokers")]
    fn broker(&mut self, kind: SourceKind) -> Result<Connection, String> {
        match kind {
            SourceKind::Nats => self.nats().map(Connection::Nats),
            _ => self.rabbitmq().map(Connection::Rabbitmq),
        }
    }

    #[cfg(feature = "brokers")]
    fn nats(&mut self) -> Result<NatsSettings, String> {
        let urls = |text: &str| text.split(',').map(|url| broker_url(url.trim(), &["nats://", "tls://"])).collect();
        let is_declared = self.optional("declare", truth)?.unwrap_or_default();
        let subjects = self.optional("subjects", |text| Ok(text.split(',').map(str::to_owned).collect()))?;
        let declared = match (is_declared, subjects) {
            (true, None) => return Err("subjects: is required with declare = true".to_owned()),
            (false, Some(_)) => return Err("subjects: needs declare = true".to_owned()),
            (_, subjects) => subjects,
        };
        Ok(NatsSettings {
            urls: self.required("url", urls)?,
            user: self.optional("user", non_empty)?,
            password_file: self.file("password_file")?,
            token_file: self.file("token_file")?,
            ca_file: self.file("ca_file")?,
            stream: self.required("stream", non_empty)?,
            consumer: self.required("consumer", non_empty)?,
            declared,
            max_in_flight: 0,
            max_bytes_in_flight: 0,
        })
    }

    #[cfg(feature = "brokers")]
    fn rabbitmq(&mut self) -> Result<RabbitmqSettings, String> {
        let uri = |text: &str| {
            let url = broker_url(text, &["amqp://", "amqps://"])?;
            url.parse::<BrokerUrl>().map_err(|_| "is not a URL like amqp://host:5672/vhost".to_owned())
        };
        Ok(RabbitmqSettings {
            uri: self.required("url", uri)?,
            user: self.optional("user", non_empty)?,
            password_file: self.file("password_file")?,
            ca_file: self.file("ca_file")?,
            queue: self.required("queue", non_empty)?,
            is_declared: self.optional("declare", truth)?.unwrap_or_default(),
            max_in_flight: 0,
            max_bytes_in_flight: 0,
        })
    }

    fn file(&mut self, name: &str) -> Result<Option<PathBuf>, String> {
        self.optional(name, |text| non_empty(text).map(PathBuf::from))
    }

    fn required<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, String> {
        self.optional(name, read)?.ok_or_else(|| format!("{name}: is required"))
    }

    fn optional<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, String> {
        let Some(text) = self.0.remove(name) else { return Ok(None) };
        read(&text).map(Some).map_err(|fault| format!("{name}: {fault}"))
    }
}

/// # Errors
/// When two sources have one name, or there are too many.
pub fn check(sources: &[SourceSettings]) -> Result<(), String> {
    if sources.len() > limits::SOURCES {
        return Err(format!("there are {} sources, more than {}", sources.len(), limits::SOURCES));
    }
    for (index, source) in sources.iter().enumerate() {
        let name = &source.terms.name;
        if sources[..index].iter().any(|earlier| earlier.terms.name == *name) {
            return Err(format!("two sources have the name {:?}", name.as_str()));
        }
    }
    Ok(())
}

/// The source in one line, without its secrets.
pub fn shown(source: &SourceSettings) -> String {
    let SourceTerms { kind, workspace, mode, .. } = &source.terms;
    let from = match &source.connection {
        Connection::Outbox(outbox) => format!("table {} of {}", outbox.table, outbox.url),
        #[cfg(feature = "brokers")]
        Connection::Nats(nats) => {
            format!("consumer {} of stream {} at {}", nats.consumer, nats.stream, nats.urls.join(","))
        }
        #[cfg(feature = "brokers")]
        Connection::Rabbitmq(rabbitmq) => {
            let authority = &rabbitmq.uri.authority;
            format!(
                "queue {} of {}:{}{}",
                rabbitmq.queue,
                authority.host,
                authority.port,
                shown_vhost(&rabbitmq.uri.vhost)
            )
        }
    };
    format!("{} for workspace {workspace} ({}): {from}", kind.as_str(), mode.as_str())
}

#[cfg(feature = "brokers")]
fn shown_vhost(vhost: &str) -> String {
    if vhost == "/" { String::new() } else { format!(", virtual host {vhost}") }
}

/// A URL with one of these schemes, and without a password that `config check` would show.
#[cfg(feature = "brokers")]
fn broker_url(text: &str, schemes: &[&str]) -> Result<String, String> {
    let rest = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
    match rest {
        None | Some("") => Err(format!("must begin with {} and name a host", schemes.join(" or "))),
        Some(rest) if rest.contains('@') => {
            Err("must hold no user and no password: use user and password_file".to_owned())
        }
        Some(_) => Ok(text.to_owned()),
    }
}

#[cfg(feature = "brokers")]
fn truth(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "must be true or false".to_owned())
}

fn non_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn number(min: u64, max: u64) -> impl Fn(&str) -> Result<u64, String> {
    move |text| {
        let read = text.parse().ok().filter(|number| (min..=max).contains(number));
        read.ok_or_else(|| format!("must be a whole number from {min} to {max}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(members: &[(&str, &str)]) -> Result<SourceSettings, String> {
        let outbox = [("name", "orders"), ("kind", "outbox"), ("workspace", "acme"), ("url", "postgres://u:p@h/d")];
        let mut table: BTreeMap<String, String> =
            outbox.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        table.extend(members.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())));
        table.retain(|_, text| text != "-");
        SourceTable(table).read()
    }

    #[test]
    fn an_outbox_needs_a_name_a_workspace_and_a_url() {
        let source = read(&[]).unwrap();
        assert_eq!(source.terms.max_in_flight, limits::SOURCE_IN_FLIGHT);
        assert_eq!(
            shown(&source),
            "outbox for workspace acme (live): table \"postrider_outbox\" of postgres://u:***@h/d"
        );
        assert_eq!(read(&[("name", "-")]).unwrap_err(), "name: is required");
        assert_eq!(read(&[("workspace", "-")]).unwrap_err(), "source \"orders\": workspace: is required");
        assert_eq!(read(&[("url", "-")]).unwrap_err(), "source \"orders\": url: is required");
    }

    #[test]
    fn a_fault_names_the_source_and_the_setting() {
        let fault = |name, text| read(&[(name, text)]).unwrap_err();
        assert_eq!(fault("kind", "kafka"), "source \"orders\": kind: must be one of outbox, nats, rabbitmq");
        assert_eq!(
            fault("max_in_flight", "0"),
            "source \"orders\": max_in_flight: must be a whole number from 1 to 10000"
        );
        assert_eq!(
            fault("max_bytes_in_flight", "1KB"),
            "source \"orders\": max_bytes_in_flight: must be a size from 1MB to 1000MB, like 32MB"
        );
        assert_eq!(fault("parked_full", "drop"), "source \"orders\": parked_full: must be stop or drop-oldest");
        assert_eq!(fault("tabel", "x"), "source \"orders\": \"tabel\" is not a setting of a source of kind outbox");
        assert!(!fault("url", "mysql://u:geheim@h/d").contains("geheim"));
    }

    #[cfg(feature = "brokers")]
    #[test]
    fn a_broker_is_read_without_its_password() {
        let nats = [
            ("kind", "nats"),
            ("url", "nats://a:4222,tls://b:4222"),
            ("stream", "EVENTS"),
            ("consumer", "postrider"),
            ("id", "header:Nats-Msg-Id"),
        ];
        let of_nats = |more: &[(&str, &str)]| read(&[&nats[..], more].concat());
        let shown_nats = shown(&of_nats(&[]).unwrap());
        assert_eq!(
            shown_nats,
            "nats for workspace acme (live): consumer postrider of stream EVENTS at nats://a:4222,tls://b:4222"
        );
        let fault = of_nats(&[("url", "nats://me:geheim@a")]).unwrap_err();
        assert!(fault.contains("password_file") && !fault.contains("geheim"), "{fault}");
        assert!(of_nats(&[("declare", "true")]).unwrap_err().contains("subjects: is required"));
        assert!(of_nats(&[("id", "-")]).unwrap_err().contains("id: is required"));
        let rabbitmq =
            [("kind", "rabbitmq"), ("url", "amqps://mq.example.com/shop"), ("queue", "events"), ("id", "message_id")];
        let of_rabbitmq = |more: &[(&str, &str)]| read(&[&rabbitmq[..], more].concat());
        let shown_rabbitmq = shown(&of_rabbitmq(&[]).unwrap());
        assert_eq!(
            shown_rabbitmq,
            "rabbitmq for workspace acme (live): queue events of mq.example.com:5671, virtual host shop"
        );
        assert!(of_rabbitmq(&[("id", "sequence")]).unwrap_err().contains("no sequence"));
        assert!(of_rabbitmq(&[("url", "http://mq")]).unwrap_err().contains("must begin with amqp://"));
    }

    #[test]
    fn two_sources_have_two_names() {
        let (first, second) = (read(&[]).unwrap(), read(&[("name", "other")]).unwrap());
        check(&[first.clone(), second]).unwrap();
        assert_eq!(check(&[first.clone(), first]).unwrap_err(), "two sources have the name \"orders\"");
    }
}
