//! A small DNS server on loopback, over UDP and TCP on one port. The test sets its answers.
//!
//! A real resolver does not produce rebinding, silence, failures and odd TTLs on demand. A mocked resolver would not
//! show how ours handles them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::wait::bounded_or;

/// The answer for one name. A name that was never set does not exist.
#[derive(Clone, Debug)]
pub enum Answer {
    Addresses {
        addresses: Vec<IpAddr>,
        ttl_seconds: u32,
    },
    /// A CNAME to another name of this server. The response includes the answer of that name.
    Alias(String),
    NxDomain,
    /// The name exists but has no addresses.
    NoData,
    ServFail,
    /// The server does not serve this client.
    Refused,
    /// Counts the query and never answers it.
    Silent,
}

impl Answer {
    /// Addresses with a TTL of 60 s. Panics on a text that is not an IP address.
    pub fn addresses(addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|text| text.parse().expect("an IP address")).collect();
        Self::Addresses { addresses, ttl_seconds: 60 }
    }

    /// The same addresses with another TTL: 0, a week, `u32::MAX`.
    pub fn with_ttl_seconds(self, ttl_seconds: u32) -> Self {
        match self {
            Self::Addresses { addresses, .. } => Self::Addresses { addresses, ttl_seconds },
            other => other,
        }
    }
}

/// Stops when dropped.
#[derive(Debug)]
pub struct DnsServer {
    address: SocketAddr,
    zone: Arc<Zone>,
    _tasks: JoinSet<()>,
}

impl DnsServer {
    pub async fn start() -> Self {
        let (udp, tcp) = bind_both().await;
        let address = udp.local_addr().expect("a bound socket");
        let zone = Arc::new(Zone::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, Arc::clone(&zone)));
        tasks.spawn(serve_tcp(tcp, Arc::clone(&zone)));
        Self { address, zone, _tasks: tasks }
    }

    /// The address on which it listens over UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the answer of `name`.
    pub fn set(&self, name: &str, answer: Answer) {
        self.set_sequence(name, vec![answer]);
    }

    /// Answers the first query for `name` with the first answer, the next with the second, and all further ones with
    /// the last. Each record type has its own count, because a lookup queries A and AAAA.
    pub fn set_sequence(&self, name: &str, answers: Vec<Answer>) {
        assert!(!answers.is_empty(), "a sequence has at least one answer");
        self.zone.lock().insert(key(name), Script { answers, asked: HashMap::new() });
    }

    /// Removes `name`, which then does not exist.
    pub fn remove(&self, name: &str) {
        self.zone.lock().remove(&key(name));
    }

    /// The number of queries for `name`, of any type.
    pub fn queries(&self, name: &str) -> usize {
        self.queries_where(|asked, _| asked == key(name))
    }

    /// The number of queries for `name` of one type.
    pub fn queries_of(&self, name: &str, record_type: RecordType) -> usize {
        self.queries_where(|asked, of| asked == key(name) && of == record_type)
    }

    /// Every query that has arrived over UDP, in order.
    pub fn datagrams(&self) -> Vec<Datagram> {
        self.zone.datagrams.lock().expect("no holder panics").clone()
    }

    /// Waits for at least `count` queries for `name`, of any type.
    pub async fn wait_for_queries(&self, name: &str, count: usize) {
        let mut log = self.zone.log.subscribe();
        let arrived = async {
            let name = key(name);
            log.wait_for(|log| log.iter().filter(|(asked, _)| *asked == name).count() >= count).await.map(drop)
        };
        bounded_or(arrived, || format!("{count} queries for {name}; there were {:?}", *self.zone.log.borrow()))
            .await
            .expect("self is alive");
    }

    fn queries_where(&self, matches: impl Fn(&str, RecordType) -> bool) -> usize {
        self.zone.log.borrow().iter().filter(|(name, of)| matches(name, *of)).count()
    }
}

/// A query that arrived over UDP.
#[derive(Clone, Debug)]
pub struct Datagram {
    pub name: String,
    /// The socket of the client.
    pub client: SocketAddr,
    pub arrived: Instant,
}

#[derive(Debug, Default)]
struct Zone {
    names: Mutex<HashMap<String, Script>>,
    datagrams: Mutex<Vec<Datagram>>,
    log: watch::Sender<Vec<(String, RecordType)>>,
}

#[derive(Debug)]
struct Script {
    answers: Vec<Answer>,
    asked: HashMap<RecordType, usize>,
}

impl Zone {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Script>> {
        self.names.lock().expect("no holder panics")
    }

    /// The bytes of the response, or `None` to send nothing. `limit` is the size of the largest response in bytes.
    fn reply(&self, query: &[u8], limit: usize) -> Option<Vec<u8>> {
        let request = Message::from_vec(query).ok()?;
        let question = request.queries.first()?.clone();
        let name = key(&question.name.to_ascii());
        self.log.send_modify(|log| log.push((name.clone(), question.query_type)));
        let mut response = Message::response(request.metadata.id, OpCode::Query);
        response.metadata.recursion_desired = request.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        response.add_query(question.clone());
        if let Err(Mute) = self.fill(&mut response, &question, &name) {
            return None;
        }
        let bytes = response.to_vec().expect("an answer that encodes");
        if bytes.len() <= limit {
            return Some(bytes);
        }
        Some(response.truncate().to_vec().expect("an answer that encodes"))
    }

    fn note_datagram(&self, query: &[u8], client: SocketAddr) {
        let Ok(request) = Message::from_vec(query) else { return };
        let Some(question) = request.queries.first() else { return };
        let name = key(&question.name.to_ascii());
        let datagram = Datagram { name, client, arrived: Instant::now() };
        self.datagrams.lock().expect("no holder panics").push(datagram);
    }

    fn fill(&self, response: &mut Message, question: &Query, name: &str) -> Result<(), Mute> {
        let mut owner = question.name.clone();
        let mut name = name.to_owned();
        // Eight aliases in a row are more than any test needs. The limit also ends a loop of aliases.
        for _ in 0..8 {
            match self.next_answer(&name, question.query_type) {
                Answer::Silent => return Err(Mute),
                Answer::ServFail => response.metadata.response_code = ResponseCode::ServFail,
                Answer::Refused => response.metadata.response_code = ResponseCode::Refused,
                Answer::NxDomain => {
                    response.metadata.response_code = ResponseCode::NXDomain;
                    response.add_authority(start_of_authority());
                }
                Answer::NoData => {
                    response.add_authority(start_of_authority());
                }
                Answer::Addresses { addresses, ttl_seconds } => {
                    let records = addresses.into_iter().map(|address| record(&owner, ttl_seconds, address));
                    response.add_answers(records.filter(|record| record.record_type() == question.query_type));
                    if response.answers.is_empty() {
                        response.add_authority(start_of_authority());
                    }
                }
                Answer::Alias(target) => {
                    let target_name = Name::from_ascii(format!("{}.", key(&target))).expect("a domain name");
                    response.add_answer(Record::from_rdata(owner, 60, RData::CNAME(CNAME(target_name.clone()))));
                    owner = target_name;
                    name = key(&target);
                    continue;
                }
            }
            break;
        }
        Ok(())
    }

    fn next_answer(&self, name: &str, record_type: RecordType) -> Answer {
        let mut names = self.lock();
        let Some(script) = names.get_mut(name) else { return Answer::NxDomain };
        let asked = script.asked.entry(record_type).or_default();
        let step = (*asked).min(script.answers.len() - 1);
        *asked += 1;
        script.answers[step].clone()
    }
}

/// The query gets no response.
struct Mute;

/// The normal form of a name: lower case, without a trailing dot.
fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn record(name: &Name, ttl_seconds: u32, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    };
    Record::from_rdata(name.clone(), ttl_seconds, data)
}

/// For negative answers. Its TTLs are 0, so that a resolver does not cache them and a test can change the answer.
fn start_of_authority() -> Record {
    let data = SOA::new(Name::root(), Name::root(), 1, 3600, 600, 86400, 0);
    Record::from_rdata(Name::root(), 0, RData::SOA(data))
}

/// Binds one port over UDP and TCP. The kernel picks a port that is free for one of them only, so a clash is retried.
async fn bind_both() -> (UdpSocket, TcpListener) {
    for _ in 0..20 {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a UDP port on loopback");
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("a bound socket")).await {
            return (udp, tcp);
        }
    }
    panic!("no port that is free for both UDP and TCP");
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Zone>) {
    const PLAIN_UDP_LIMIT: usize = 512;
    let mut buffer = vec![0; 4096];
    loop {
        // A client that has gone away causes an error on the next receive, which must not end the server.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        zone.note_datagram(&buffer[..length], client);
        if let Some(reply) = zone.reply(&buffer[..length], PLAIN_UDP_LIMIT) {
            let _gone = socket.send_to(&reply, client).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Zone>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve_tcp_client(stream, Arc::clone(&zone)));
    }
}

async fn serve_tcp_client(mut stream: TcpStream, zone: Arc<Zone>) {
    while let Ok(length) = stream.read_u16().await {
        let mut query = vec![0; usize::from(length)];
        if stream.read_exact(&mut query).await.is_err() {
            return;
        }
        let Some(reply) = zone.reply(&query, usize::from(u16::MAX)) else { continue };
        let length = u16::try_from(reply.len()).expect("an answer within the limit").to_be_bytes();
        if stream.write_all(&[&length[..], &reply].concat()).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::receiver::connect;
    use super::super::wait::bounded;
    use super::*;

    fn question(name: &str, record_type: RecordType) -> Vec<u8> {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
        message.to_vec().unwrap()
    }

    async fn ask(server: &DnsServer, name: &str, record_type: RecordType) -> Message {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.send_to(&question(name, record_type), server.address()).await.unwrap();
        let mut buffer = [0; 4096];
        let length = bounded("a DNS answer", socket.recv(&mut buffer)).await.unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }

    fn addresses(message: &Message) -> Vec<String> {
        message.answers.iter().filter_map(|record| record.data.ip_addr()).map(|ip| ip.to_string()).collect()
    }

    #[tokio::test]
    async fn a_name_is_answered_in_any_spelling() {
        let server = DnsServer::start().await;
        server.set("hooks.example.test.", Answer::addresses(&["192.0.2.1", "2001:db8::1"]).with_ttl_seconds(0));
        let v4 = ask(&server, "Hooks.EXAMPLE.test", RecordType::A).await;
        assert_eq!(addresses(&v4), ["192.0.2.1"]);
        assert_eq!(v4.answers[0].ttl, 0);
        let v6 = ask(&server, "hooks.example.test.", RecordType::AAAA).await;
        assert_eq!(addresses(&v6), ["2001:db8::1"]);
        assert_eq!(server.queries("hooks.example.test"), 2);
        assert_eq!(server.queries_of("hooks.example.test", RecordType::AAAA), 1);
        assert_eq!(server.queries("another.test"), 0);
    }

    #[tokio::test]
    async fn a_sequence_advances_per_query_and_type_and_stays_at_its_end() {
        let server = DnsServer::start().await;
        let rebind = vec![Answer::addresses(&["192.0.2.1"]), Answer::addresses(&["127.0.0.1"])];
        server.set_sequence("rebind.test", rebind);
        assert_eq!(addresses(&ask(&server, "rebind.test", RecordType::A).await), ["192.0.2.1"]);
        assert!(addresses(&ask(&server, "rebind.test", RecordType::AAAA).await).is_empty());
        assert_eq!(addresses(&ask(&server, "rebind.test", RecordType::A).await), ["127.0.0.1"]);
        assert_eq!(addresses(&ask(&server, "rebind.test", RecordType::A).await), ["127.0.0.1"]);
    }

    #[tokio::test]
    async fn failures_have_their_response_codes() {
        let server = DnsServer::start().await;
        server.set("servfail.test", Answer::ServFail);
        server.set("nodata.test", Answer::NoData);
        server.set("removed.test", Answer::addresses(&["192.0.2.1"]));
        server.remove("removed.test");
        server.set("gone.test", Answer::NxDomain);
        for (name, code) in [
            ("servfail.test", ResponseCode::ServFail),
            ("nodata.test", ResponseCode::NoError),
            ("removed.test", ResponseCode::NXDomain),
            ("gone.test", ResponseCode::NXDomain),
        ] {
            let answer = ask(&server, name, RecordType::A).await;
            assert_eq!(answer.metadata.response_code, code, "{name}");
            assert!(answer.answers.is_empty(), "{name}");
        }
    }

    #[tokio::test]
    async fn a_silent_name_counts_queries_and_answers_none() {
        let server = DnsServer::start().await;
        server.set("silent.test", Answer::Silent);
        server.set("loud.test", Answer::addresses(&["192.0.2.9"]));
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.send_to(&question("silent.test", RecordType::A), server.address()).await.unwrap();
        socket.send_to(&question("loud.test", RecordType::A), server.address()).await.unwrap();
        server.wait_for_queries("silent.test", 1).await;
        let mut buffer = [0; 4096];
        let length = bounded("the answer to the second query", socket.recv(&mut buffer)).await.unwrap();
        assert_eq!(addresses(&Message::from_vec(&buffer[..length]).unwrap()), ["192.0.2.9"]);
    }

    #[tokio::test]
    async fn an_alias_includes_the_answer_of_its_target() {
        let server = DnsServer::start().await;
        server.set("alias.test", Answer::Alias("inside.test".to_owned()));
        server.set("inside.test", Answer::addresses(&["10.0.0.1"]));
        let answer = ask(&server, "alias.test", RecordType::A).await;
        assert_eq!(answer.answers.len(), 2);
        assert_eq!(answer.answers[0].record_type(), RecordType::CNAME);
        assert_eq!(addresses(&answer), ["10.0.0.1"]);
    }

    #[tokio::test]
    async fn a_long_answer_is_truncated_over_udp_and_whole_over_tcp() {
        let server = DnsServer::start().await;
        let many: Vec<String> = (1..=100).map(|last| format!("192.0.2.{last}")).collect();
        server.set("many.test", Answer::addresses(&many.iter().map(String::as_str).collect::<Vec<_>>()));
        assert!(ask(&server, "many.test", RecordType::A).await.metadata.truncation);

        let mut stream = connect(server.address()).await;
        let query = question("many.test", RecordType::A);
        stream.write_u16(u16::try_from(query.len()).unwrap()).await.unwrap();
        stream.write_all(&query).await.unwrap();
        let length = bounded("a DNS answer over TCP", stream.read_u16()).await.unwrap();
        let mut reply = vec![0; usize::from(length)];
        stream.read_exact(&mut reply).await.unwrap();
        assert_eq!(addresses(&Message::from_vec(&reply).unwrap()).len(), 100);
    }
}
