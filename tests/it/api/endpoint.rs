//! `/v1/webhook-endpoints`.

use postrider_domain::access::Scope;
use serde_json::{Value, json};

use super::{ENDPOINTS, an_endpoint, an_endpoint_with, faults, without};
use crate::support::app::{App, PUBLIC_HOST, text};
use crate::support::dns::Answer;
use crate::support::receiver::Receiver;

#[tokio::test]
async fn a_created_endpoint_has_the_order_of_the_published_page() {
    let app = App::start().await;
    let body = json!({
        "name": "Production CRM",
        "url": "https://hooks.example.com/scripe",
        "events": ["post.created", "job.completed"],
        "projectId": "proj_a1b2c3d4e5f6g7h8",
    });
    let reply = app.post(ENDPOINTS, body).await;
    let data = reply.data(200);
    let (id, secret) = (text(&data, "id"), text(&data, "secret"));
    let last4 = &secret[secret.len() - 4..];
    // Members that the published page does not have come after its members.
    let after_secret = format!(
        "\"updatedAt\":\"2026-05-15T12:00:00.000Z\",\"health\":{},{}}}}}",
        "{\"state\":\"ok\",\"since\":null,\"failures\":0,\"nextProbeAt\":null,\"disablesAt\":null}",
        "\"headers\":{},\"retrySchedule\":null,\"timeoutSeconds\":null,\"signatureSchemes\":[\"v1\"],\
         \"publicKey\":null,\"rateLimit\":null,\"ordering\":\"none\",\"traceForwarding\":null,\"clientCertificate\":null,\
         \"mode\":\"live\""
    );
    let before_secret = format!(
        "{{\"data\":{{\"id\":\"{id}\",\"url\":\"https://hooks.example.com/scripe\",\"name\":\"Production CRM\",\
         \"events\":[\"post.created\",\"job.completed\"],\"isActive\":true,\"disabledReason\":null,\
         \"projectId\":\"proj_a1b2c3d4e5f6g7h8\",\"secretLast4\":\"{last4}\",\
         \"createdAt\":\"2026-05-15T12:00:00.000Z\","
    );
    assert_eq!(reply.text(), format!("{before_secret}\"secret\":\"{secret}\",{after_secret}"));
    assert_eq!(reply.header("content-type"), Some("application/json"));

    let shown = app.get(&format!("{ENDPOINTS}/{id}")).await;
    assert_eq!(shown.status, 200);
    assert_eq!(shown.text(), format!("{before_secret}{after_secret}"), "the same, without the secret");
}

#[tokio::test]
async fn ids_and_secrets_have_the_published_shape_and_are_unique() {
    let app = App::start().await;
    let made = [app.endpoint(an_endpoint()).await, app.endpoint(an_endpoint()).await];
    for endpoint in &made {
        let id = endpoint.id.strip_prefix("whe_").unwrap();
        assert!(id.len() == 16 && id.bytes().all(|c| c.is_ascii_digit() || c.is_ascii_lowercase()), "{id}");
        let secret = endpoint.secret.strip_prefix("whsec_").unwrap();
        assert!(secret.len() == 64 && secret.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')), "{secret}");
    }
    assert_ne!(made[0].id, made[1].id);
    assert_ne!(made[0].secret, made[1].secret);
}

#[tokio::test]
async fn a_project_that_is_null_or_absent_means_every_project() {
    let app = App::start().await;
    for body in [an_endpoint(), an_endpoint_with("projectId", Value::Null)] {
        assert_eq!(app.post(ENDPOINTS, body).await.data(200)["projectId"], Value::Null);
    }
}

#[tokio::test]
async fn each_missing_parameter_is_named() {
    let app = App::start().await;
    for name in ["name", "url", "events"] {
        let error = app.post(ENDPOINTS, without(an_endpoint(), name)).await.error(400, "invalid_request");
        assert_eq!(error["details"], json!({"parameters": {name: "is required"}}));
        assert_eq!(error["message"], format!("{name}: is required."));
    }
    let error = app.post(ENDPOINTS, json!({})).await.error(400, "invalid_request");
    assert_eq!(*faults(&error), json!({"name": "is required", "url": "is required", "events": "is required"}));
}

#[tokio::test]
async fn lengths_are_counted_in_characters_up_to_the_limit() {
    let app = App::start().await;
    for name in ["é", &"é".repeat(128), &"\u{1f4ee}".repeat(128)] {
        let made = app.post(ENDPOINTS, an_endpoint_with("name", json!(name))).await.data(200);
        assert_eq!(made["name"], name);
    }
    for name in [String::new(), "é".repeat(129)] {
        let error = app.post(ENDPOINTS, an_endpoint_with("name", json!(name))).await.error(400, "invalid_request");
        assert_eq!(*faults(&error), json!({"name": "must be 1 to 128 characters"}));
    }
    let url = |length: usize| {
        let base = format!("https://{PUBLIC_HOST}/é");
        format!("{base}{}", "a".repeat(length - base.chars().count()))
    };
    let made = app.post(ENDPOINTS, an_endpoint_with("url", json!(url(1024)))).await.data(200);
    assert_eq!(made["url"], url(1024).replace('é', "%C3%A9"));
    let error = app.post(ENDPOINTS, an_endpoint_with("url", json!(url(1025)))).await.error(400, "invalid_request");
    assert_eq!(*faults(&error), json!({"url": "must be 1 to 1024 characters"}));
}

#[tokio::test]
async fn events_come_from_the_closed_list_and_duplicates_are_dropped() {
    let app = App::start().await;
    let all = json!([
        "note.created",
        "post.created",
        "post.updated",
        "post.scheduled",
        "post.unscheduled",
        "source.created",
        "job.completed",
        "job.failed",
        "knowledge.indexed"
    ]);
    assert_eq!(app.post(ENDPOINTS, an_endpoint_with("events", all.clone())).await.data(200)["events"], all);
    let repeated = json!(["job.failed", "post.created", "job.failed"]);
    let made = app.post(ENDPOINTS, an_endpoint_with("events", repeated)).await.data(200);
    assert_eq!(made["events"], json!(["job.failed", "post.created"]));

    let fault_of = async |events: Value| {
        let error = app.post(ENDPOINTS, an_endpoint_with("events", events)).await.error(400, "invalid_request");
        text(faults(&error), "events")
    };
    assert_eq!(fault_of(json!([])).await, "must name at least one event");
    for unknown in ["post.deleted", "Post.created", "post.created ", "*", ""] {
        let fault = fault_of(json!(["post.created", unknown])).await;
        assert!(fault.starts_with(&format!("{unknown:?} is not an event name")), "{fault}");
        assert!(fault.ends_with("job.failed, knowledge.indexed"), "{fault}");
    }
    for wrong in [json!("post.created"), json!([1]), json!([null]), json!({}), Value::Null] {
        assert_eq!(fault_of(wrong).await, "must be an array of event names");
    }
}

#[tokio::test]
async fn all_values_of_a_wrong_type_are_named_at_once() {
    let app = App::start().await;
    let body = json!({"name": 1, "url": true, "events": ["post.created"], "projectId": 7});
    let error = app.post(ENDPOINTS, body).await.error(400, "invalid_request");
    assert_eq!(
        *faults(&error),
        json!({"name": "must be a string", "url": "must be a string", "projectId": "must be a string"})
    );
    for bad in ["", "a b", "proj/1", &"p".repeat(65)] {
        let error = app.post(ENDPOINTS, an_endpoint_with("projectId", json!(bad))).await.error(400, "invalid_request");
        assert_eq!(*faults(&error), json!({"projectId": "must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -"}));
    }
}

#[tokio::test]
async fn an_unknown_parameter_is_refused_with_its_name() {
    let app = App::start().await;
    let error = app.post(ENDPOINTS, an_endpoint_with("secret", json!("mine"))).await.error(400, "invalid_request");
    assert_eq!(*faults(&error), json!({"secret": "is not a known parameter"}));
    let error = app.post(ENDPOINTS, an_endpoint_with("Name", json!("x"))).await.error(400, "invalid_request");
    assert_eq!(*faults(&error), json!({"Name": "is not a known parameter"}));
}

#[tokio::test]
async fn a_malformed_url_is_refused_with_the_broken_rule() {
    let app = App::start().await;
    let rules = [
        ("http://hooks.example.com/", "must use https"),
        ("ftp://hooks.example.com/", "must use https"),
        ("https://user:pass@hooks.example.com/", "must not contain credentials"),
        ("https://hooks.example.com/#here", "must not contain a fragment"),
        ("https://", "must have a host"),
        ("hooks.example.com", "must be an absolute https URL with a valid host"),
        ("/scripe", "must be an absolute https URL with a valid host"),
        ("https://hooks.example.com/ space", "must not contain white space or control characters"),
        ("https://hooks.exam\tple.com/", "must not contain white space or control characters"),
        ("https:8.8.8.8/hook", "must have exactly two slashes between the scheme and the host"),
        ("https:///8.8.8.8/hook", "must have exactly two slashes between the scheme and the host"),
        ("https:\\\\8.8.8.8/hook", "must not contain a backslash"),
        ("https://hooks..example.com/", "must have a host without empty labels"),
    ];
    for (url, rule) in rules {
        let reply = app.post(ENDPOINTS, an_endpoint_with("url", json!(url))).await;
        assert_eq!(*faults(&reply.error(400, "invalid_request")), json!({"url": rule}), "{url}");
    }
    assert_eq!(app.dns().queries(PUBLIC_HOST), 0, "a form that is wrong is not worth a look-up");
}

#[tokio::test]
async fn a_url_is_shown_as_it_is_called() {
    let receiver = Receiver::start().await;
    let app = App::to_loopback().await;
    let port = receiver.address().port();
    let url = format!("HTTP://127.1:{port}/a/../\u{fc}?q=\u{fc}");
    let canonical = format!("http://127.0.0.1:{port}/%C3%BC?q=%C3%BC");
    let made = app.post(ENDPOINTS, an_endpoint_with("url", json!(url))).await.data(200);
    let path = format!("{ENDPOINTS}/{}", text(&made, "id"));
    let changed = app.caller().patch(&path, json!({"url": url})).await.data(200);
    for shown in [&made, &app.get(&path).await.data(200), &changed] {
        assert_eq!(shown["url"], canonical);
    }
    app.publish("post.created", json!({})).await;
    let received = receiver.wait_for(1).await;
    assert_eq!(received[0].path, "/%C3%BC?q=%C3%BC");
}

/// Host names, their addresses, and the reason for which they are refused.
const NOT_PUBLIC: &[(&str, &[&str], &str)] = &[
    ("loopback.example", &["127.0.0.1"], "loopback"),
    ("private.example", &["10.0.0.1"], "private"),
    ("private-172.example", &["172.31.255.255"], "private"),
    ("private-192.example", &["192.168.1.1"], "private"),
    ("metadata.example", &["169.254.169.254"], "link_local"),
    ("loopback-v6.example", &["::1"], "loopback"),
    ("mapped.example", &["::ffff:10.0.0.1"], "private"),
    ("cgnat.example", &["100.64.0.1"], "cgnat"),
    ("mixed.example", &["93.184.215.14", "10.0.0.1"], "private"),
    ("mixed-families.example", &["93.184.215.14", "fe80::1"], "link_local"),
    ("zero.example", &["0.0.0.0"], "unspecified"),
];

#[tokio::test]
async fn a_name_with_any_non_public_address_is_refused_with_a_reason() {
    let elsewhere = "https://api.acme.test".to_owned();
    let app = App::set_up().await.change(|settings| settings.public_url = Some(elsewhere)).start().await;
    for (host, addresses, reason) in NOT_PUBLIC {
        app.dns().set(host, Answer::addresses(addresses));
        let reply = app.post(ENDPOINTS, an_endpoint_with("url", json!(format!("https://{host}/")))).await;
        let error = reply.error(422, "ssrf_blocked");
        assert_eq!(error["details"], json!({"host": host, "reason": reason}));
        for address in *addresses {
            assert!(!error.to_string().contains(address), "an address is told: {error}");
        }
    }
}

#[tokio::test]
async fn an_address_in_the_url_is_checked_like_a_name() {
    let app = App::start().await;
    let literals = [
        ("127.0.0.1", "127.0.0.1", "loopback"),
        ("10.1.2.3", "10.1.2.3", "private"),
        ("169.254.169.254", "169.254.169.254", "link_local"),
        ("[::1]", "::1", "loopback"),
        ("[::ffff:10.0.0.1]", "10.0.0.1", "private"),
        ("100.127.255.255", "100.127.255.255", "cgnat"),
        ("0x7f.1", "127.0.0.1", "loopback"),
        ("2130706433", "127.0.0.1", "loopback"),
    ];
    for (host, shown, reason) in literals {
        let reply = app.post(ENDPOINTS, an_endpoint_with("url", json!(format!("https://{host}/")))).await;
        let error = reply.error(422, "ssrf_blocked");
        assert_eq!(error["details"]["reason"], reason, "{host}");
        assert_eq!(text(&error["details"], "host").trim_matches(['[', ']']), shown, "{host}");
    }
}

#[tokio::test]
async fn a_name_without_an_address_is_refused_as_unresolvable() {
    let app = App::start().await;
    app.dns().set("empty.example", Answer::NoData);
    app.dns().set("broken.example", Answer::ServFail);
    for host in ["nowhere.example", "empty.example", "broken.example"] {
        let reply = app.post(ENDPOINTS, an_endpoint_with("url", json!(format!("https://{host}/")))).await;
        let error = reply.error(422, "ssrf_blocked");
        assert_eq!(error["details"], json!({"host": host, "reason": "unresolvable"}));
    }
}

#[tokio::test]
async fn plain_http_is_only_for_allowed_targets() {
    let app = App::set_up().await.allow("127.0.0.0/8").allow("inside.example").start().await;
    app.dns().set("inside.example", Answer::addresses(&["10.0.0.1"]));
    for allowed in ["http://127.0.0.1:9/", "https://127.0.0.1:9/", "http://inside.example/", "https://inside.example/"]
    {
        app.endpoint(an_endpoint_with("url", json!(allowed))).await;
    }
    let error = app.post(ENDPOINTS, an_endpoint_with("url", json!("http://hooks.example.com/"))).await;
    assert_eq!(*faults(&error.error(400, "invalid_request")), json!({"url": "must use https"}));
    let error = app.post(ENDPOINTS, an_endpoint_with("url", json!("https://10.0.0.1/"))).await;
    error.error(422, "ssrf_blocked");
}

#[tokio::test]
async fn another_workspaces_endpoint_is_not_found() {
    let app = App::start().await;
    let ours = app.endpoint(an_endpoint()).await;
    let stranger = app.caller_of("Globex", &[Scope::WebhooksManage]).await;
    for id in [&*ours.id, "whe_0000000000000000", "whe_", "org_a1b2c3d4e5f6g7h8", "..", "%41"] {
        let error = stranger.get(&format!("{ENDPOINTS}/{id}")).await.error(404, "not_found");
        assert_eq!(error["message"], "There is no such resource.");
        assert!(error.get("details").is_none());
    }
}

#[tokio::test]
async fn the_501st_endpoint_of_a_project_is_refused() {
    let app = App::start().await;
    let body = an_endpoint_with("projectId", json!("proj_full"));
    for _ in 0..500 {
        app.post(ENDPOINTS, body.clone()).await.data(200);
    }
    app.post(ENDPOINTS, body).await.error(409, "conflict");
    app.endpoint(an_endpoint_with("projectId", json!("proj_other"))).await;
}

#[tokio::test]
async fn an_endpoint_has_only_one_path() {
    let app = App::start().await;
    let made = app.endpoint(an_endpoint()).await;
    for path in [format!("{ENDPOINTS}/{}/", made.id), format!("/v1//webhook-endpoints/{}", made.id)] {
        app.get(&path).await.error(404, "not_found");
    }
}
