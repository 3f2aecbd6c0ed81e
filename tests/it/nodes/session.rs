//! Sign-in sessions over several nodes of a database.

use std::sync::Arc;
use std::time::Duration;

use postrider_domain::access::Mode;
use postrider_domain::audit::Actor;
use postrider_service::{CreateLoginCode, ServiceError};
use tokio::time::Instant;

use crate::server::session::{READER, key, origin};
use crate::support::app::App;
use crate::support::postgres::TestDatabase;
use crate::support::wait::eventually;

/// The longest time for which an ended session may work elsewhere.
const BOUND: Duration = Duration::from_secs(5);

async fn two_nodes() -> Option<[App; 2]> {
    let database = Arc::new(TestDatabase::new().await?);
    let start = async || App::set_up().await.on(&database).start().await;
    Some([start().await, start().await])
}

async fn resume(node: &App, token: &str) -> Result<Actor, ServiceError> {
    node.server().service().resume_session(token, origin()).await.map(|principal| principal.actor)
}

/// Returns how long the session still works at this node.
async fn time_until_ended(node: &App, token: &str) -> Duration {
    let since = Instant::now();
    let ended = || async {
        match resume(node, token).await {
            Err(ServiceError::SessionEnded) => Some(()),
            Err(error) => panic!("{error:?}"),
            Ok(_) => None,
        }
    };
    eventually("the end of the session", ended).await;
    since.elapsed()
}

#[tokio::test]
async fn a_session_works_at_every_node_and_ends_with_its_key() {
    let Some([here, there]) = two_nodes().await else { return };
    let key = key(&here, Mode::Live, READER, None).await;
    let session = here.server().service().sign_in(key.secret.reveal(), origin()).await.unwrap();
    assert_eq!(resume(&there, &session.token).await.unwrap(), session.principal.actor);
    here.server().operator().revoke_api_key(key.key.id).await.unwrap();
    assert!(matches!(resume(&here, &session.token).await, Err(ServiceError::SessionEnded)));
    let took = time_until_ended(&there, &session.token).await;
    assert!(took < BOUND, "{took:?}");
}

#[tokio::test]
async fn signing_out_at_one_node_ends_the_session_at_the_others() {
    let Some([here, there]) = two_nodes().await else { return };
    let key = key(&here, Mode::Live, READER, None).await;
    let session = here.server().service().sign_in(key.secret.reveal(), origin()).await.unwrap();
    resume(&there, &session.token).await.unwrap();
    here.server().service().sign_out(&session.token, origin()).await.unwrap();
    let took = time_until_ended(&there, &session.token).await;
    assert!(took < BOUND, "{took:?}");
}

#[tokio::test]
async fn a_login_code_opens_one_session_when_two_nodes_use_it_at_once() {
    let Some([here, there]) = two_nodes().await else { return };
    for _ in 0..20 {
        let create = CreateLoginCode { workspace: Some("Acme".to_owned()), scopes: None, mode: Mode::Live };
        let code = here.server().operator().create_login_code(create).await.unwrap().code;
        let sign_in = |node: &App| {
            let service = Arc::clone(node.server().service());
            let code = code.clone();
            async move { service.sign_in_by_code(&code, origin()).await }
        };
        let (first, second) = tokio::join!(sign_in(&here), sign_in(&there));
        let opened = usize::from(first.is_ok()) + usize::from(second.is_ok());
        assert_eq!(opened, 1, "{first:?} {second:?}");
        let refused = first.err().or(second.err()).unwrap();
        assert!(matches!(refused, ServiceError::LoginCodeRefused), "{refused:?}");
    }
}
