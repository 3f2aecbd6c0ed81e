//! `postrider doctor` as an operator runs it: the line for each address, and the exit code for the target.

use crate::support::dns::{Answer, DnsServer};
use crate::support::process::{Ended, path_text, postrider};
use crate::support::proxy::{Habit, Proxy};
use crate::support::receiver::Receiver;
use crate::support::tls::TestCa;

/// Runs the doctor. Returns whether it succeeded, its output with every duration as `N ms`, and the process.
async fn doctor(dns: &DnsServer, arguments: &[&str]) -> (bool, String, Ended) {
    let server = dns.address().to_string();
    let ended = postrider(&[&["doctor", "--dns-server", &server], arguments].concat()).await;
    let words = ended.stdout.split(' ').collect::<Vec<_>>();
    let is_time = |at: usize| words.get(at + 1).is_some_and(|next| next.starts_with("ms"));
    let steady = |(at, word): (usize, &&str)| if is_time(at) { "N".to_owned() } else { (*word).to_owned() };
    let text = words.iter().enumerate().map(steady).collect::<Vec<_>>().join(" ");
    (ended.status.success(), text, ended)
}

#[tokio::test]
async fn a_working_target_is_reported_address_by_address() {
    let (dns, ca, directory) = (DnsServer::start().await, TestCa::new(), tempfile::tempdir().unwrap());
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, ca.pem()).unwrap();
    let receiver = Receiver::start_tls(&ca.leaf(&["hooks.test"])).await;
    let port = receiver.address().port();
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1", "127.0.0.2"]));
    let url = receiver.url_at("hooks.test", "/in");
    let (good, text, ended) =
        doctor(&dns, &["--allow-target", "127.0.0.0/8", "--ca-file", path_text(&file), &url]).await;
    assert!(good, "{}{}", ended.stdout, ended.stderr);
    let expected = format!(
        "scheme   https\n\
         port     {port}\n\
         host     hooks.test, 2 addresses, looked up in N ms\n\
         \x20 127.0.0.1  loopback, allowed by 127.0.0.0/8; connected in N ms; TLS in N ms; HTTP/1.1\n\
         \x20 127.0.0.2  loopback, allowed by 127.0.0.0/8; the connection was refused (after N ms)\n\
         verdict  reachable: 1 of 2 addresses work; one is enough\n"
    );
    assert_eq!(text, expected);
    assert_eq!(receiver.counts().requests, 0, "nothing is sent");
}

#[tokio::test]
async fn a_refused_target_is_explained_and_no_socket_is_opened() {
    let dns = DnsServer::start().await;
    let receiver = Receiver::start().await;
    dns.set("mixed.test", Answer::addresses(&["127.0.0.1", "10.0.0.5"]));
    let url = format!("https://mixed.test:{}/", receiver.address().port());
    let (good, text, ended) = doctor(&dns, &["--allow-target", "127.0.0.1", &url]).await;
    assert!(!good);
    assert_eq!(ended.failure(), (1, "postrider: the target is not reachable"));
    for line in [
        "  127.0.0.1  loopback, allowed by 127.0.0.1; not tried",
        "  10.0.0.5   refused as private: 10.0.0.0/8 is private use, RFC 1918; not tried",
        "verdict  not reachable: refused as private; one refused address is enough to refuse the host",
        "         to allow it: --allow-target 10.0.0.5, or any address of the name: --allow-target mixed.test",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} is missing in\n{text}");
    }
    assert_eq!(receiver.counts().connections, 0);
}

#[tokio::test]
async fn spellings_schemes_and_ports_are_explained() {
    let dns = DnsServer::start().await;
    for (url, lines) in [
        (
            "https://0x7f.1/",
            &[
                "host     127.0.0.1, an IP address",
                "  127.0.0.1  refused as loopback: 127.0.0.0/8 is loopback, RFC 1122; not tried",
                "         to allow it: --allow-target 127.0.0.1",
            ][..],
        ),
        (
            "https://[64:ff9b::a00:1]/",
            &[
                "  64:ff9b::a00:1  judged as 10.0.0.1; refused as private: 10.0.0.0/8 is private use, RFC 1918; not tried",
            ],
        ),
        (
            "http://8.8.8.8/#part",
            &[
                "scheme   http, permitted only if every address is allowed",
                "fragment the API refuses a URL with a fragment",
                "  8.8.8.8  public; not tried",
                "verdict  not reachable: plain http is refused",
                "         to allow it: --allow-target 8.8.8.8",
            ],
        ),
        (
            "https://8.8.8.8:25/",
            &[
                "port     25, a port of another protocol; permitted only if every address is allowed",
                "verdict  not reachable: the port is refused",
            ],
        ),
        (
            "https://nowhere.test/",
            &[
                "host     nowhere.test: the name has no address",
                "verdict  not reachable: the name does not resolve to an address",
            ],
        ),
    ] {
        let (good, text, _) = doctor(&dns, &[url]).await;
        assert!(!good, "{text}");
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "{line:?} is missing in\n{text}");
        }
    }
    let (good, _, ended) = doctor(&dns, &["ftp://a.example/"]).await;
    assert!(!good && ended.stderr.contains("must be an http or https URL"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_target_with_an_untrusted_certificate_is_not_reachable() {
    let (dns, ca) = (DnsServer::start().await, TestCa::new());
    let receiver = Receiver::start_tls(&ca.leaf(&["hooks.test"])).await;
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let url = receiver.url_at("hooks.test", "/");
    let (good, text, _) = doctor(&dns, &["--allow-target", "hooks.test", &url]).await;
    assert!(!good);
    let line = "  127.0.0.1  loopback, allowed by hooks.test; connected in N ms; the TLS handshake failed: the certificate's \
                issuer is not known (after N ms)";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("not reachable: allowed, but no connection succeeded"), "{text}");
}

#[tokio::test]
async fn a_proxy_is_used_and_its_password_is_not_printed() {
    let (dns, receiver) = (DnsServer::start().await, Receiver::start().await);
    let proxy = Proxy::start(Habit::Tunnel).await;
    let flag = format!("http://alice:hunter2@{}", proxy.address());
    let arguments = ["--allow-target", "127.0.0.1", "--egress-proxy", &flag, &receiver.url("/")];
    let (good, text, ended) = doctor(&dns, &arguments).await;
    assert!(good, "{text}");
    assert!(text.contains(&format!("proxy    {}, which gets only the address, not the name", proxy.url())), "{text}");
    assert!(!ended.stdout.contains("hunter2") && !ended.stderr.contains("hunter2"));
    assert_eq!(proxy.asked().len(), 1);
}
