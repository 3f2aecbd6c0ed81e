//! Rate limits count over all nodes of a database.

use std::num::NonZeroU32;
use std::sync::Arc;

use futures_util::future::join_all;
use postrider_domain::rate_limit::RateLimits;

use crate::support::app::{ALL_SCOPES, App};
use crate::support::caller::Caller;
use crate::support::postgres::TestDatabase;
use crate::support::wait::eventually;

const LIMIT: usize = 120;
const DELIVERIES: &str = "/v1/webhook-deliveries";

async fn nodes(count: usize) -> Option<Vec<App>> {
    let database = Arc::new(TestDatabase::new().await?);
    let management = NonZeroU32::new(u32::try_from(LIMIT).unwrap());
    let mut nodes = Vec::new();
    for _ in 0..count {
        let setup = App::set_up().await.on(&database);
        let limited =
            setup.change(|settings| settings.rate_limits = RateLimits { management, ..RateLimits::default() });
        nodes.push(limited.start().await);
    }
    Some(nodes)
}

/// One key, at each node.
async fn callers(nodes: &[App]) -> Vec<Caller> {
    let key = nodes[0].caller_of("Shared", ALL_SCOPES).await;
    nodes.iter().map(|node| key.at(node.server().address())).collect()
}

async fn admitted(caller: &Caller, requests: usize) -> usize {
    let replies = join_all((0..requests).map(|_| caller.get(DELIVERIES))).await;
    replies.iter().filter(|reply| reply.status == 200).count()
}

#[tokio::test]
async fn a_burst_at_all_nodes_at_once_stays_within_the_bound() {
    for count in [2, 4] {
        let Some(nodes) = nodes(count).await else { return };
        let callers = callers(&nodes).await;
        let sum: usize = join_all(callers.iter().map(|caller| admitted(caller, LIMIT))).await.iter().sum();
        assert!((LIMIT..=LIMIT * 6 / 5).contains(&sum), "{count} nodes admitted {sum} of {LIMIT}");
        let reply = callers[0].get(DELIVERIES).await;
        assert_eq!((reply.status, reply.header("x-ratelimit-remaining")), (429, Some("0")));
        assert!((1..=60).contains(&reply.header("retry-after").unwrap().parse::<u64>().unwrap()));
    }
}

#[tokio::test]
async fn one_node_admits_the_whole_limit_and_the_others_see_it() {
    let Some(nodes) = nodes(3).await else { return };
    let callers = callers(&nodes).await;
    assert_eq!(admitted(&callers[0], LIMIT + 20).await, LIMIT);
    for other in &callers[1..] {
        let refused = || async { (other.get(DELIVERIES).await.status == 429).then_some(()) };
        eventually("a refusal by another node", refused).await;
    }
}

#[tokio::test]
async fn a_restart_does_not_clear_the_counts() {
    let Some(mut nodes) = nodes(2).await else { return };
    let caller = callers(&nodes).await.remove(0);
    assert_eq!(admitted(&caller, LIMIT).await, LIMIT);
    nodes[0].restart().await;
    let caller = caller.at(nodes[0].server().address());
    let refused = || async { (caller.get(DELIVERIES).await.status == 429).then_some(()) };
    eventually("a refusal after the restart", refused).await;
}
