use std::net::IpAddr;
use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::budget::Reserved;

const MINUTE: Duration = Duration::from_secs(60);

fn client(last: u8) -> Client {
    Client::from(IpAddr::from([192, 0, 2, last]))
}

fn enter_as(connections: &Arc<Connections>, client: Client) -> Option<Arc<Member>> {
    match connections.enter(client) {
        Entered::Member(member) => Some(Arc::new(member)),
        Entered::Queued(_) | Entered::Full => None,
    }
}

fn enter(connections: &Arc<Connections>) -> Option<Arc<Member>> {
    enter_as(connections, client(1))
}

/// A connection whose request is not complete.
struct HalfSent {
    member: Arc<Member>,
    _busy: Busy,
}

/// A connection that has sent `bytes` of a body, the last of them `ago`.
fn uploading(connections: &Arc<Connections>, last: u8, bytes: u64, ago: Duration) -> HalfSent {
    let member = enter_as(connections, client(last)).unwrap();
    let busy = member.begin();
    member.expect_body();
    let began = Instant::now() - ago;
    let mut pace = Pace::new(began);
    pace.received(began, bytes);
    member.connection.lock().phase = Phase::Body(pace);
    HalfSent { member, _busy: busy }
}

fn is_evicted(member: &Member) -> bool {
    member.snapshot().evicted.is_some()
}

fn status(member: &Member, limits: &HttpLimits) -> Option<u16> {
    let snapshot = member.snapshot();
    let reason = snapshot.ended(limits, false)?;
    Some(snapshot.refusal(reason, limits)?.status())
}

fn limits() -> HttpLimits {
    HttpLimits {
        limit_concurrency: 1,
        timeout_header: Duration::from_secs(10),
        timeout_body: Duration::from_secs(30),
        timeout_send: Duration::from_secs(60),
        timeout_keep_alive: Duration::from_secs(75),
        request_memory_bytes: 1 << 20,
        max_prompt_pixels: 1,
    }
}

#[test]
fn a_new_connection_replaces_the_one_that_waits_for_longest() {
    let connections = Arc::new(Connections::new(3));
    let [first, second, third] = std::array::from_fn(|_| enter(&connections).unwrap());
    let busy = first.begin();
    let fourth = enter(&connections).unwrap();
    assert_eq!([&first, &second, &third].map(|member| is_evicted(member)), [false, true, false]);
    drop(busy);
    first.flushed();
    let _fifth = enter(&connections).unwrap();
    assert_eq!([&first, &third].map(|member| is_evicted(member)), [false, true]);
    assert!(!is_evicted(&fourth));
}

#[test]
fn a_connection_is_refused_while_all_have_requests_in_progress() {
    let connections = Arc::new(Connections::new(1));
    let member = enter(&connections).unwrap();
    let busy = member.begin();
    assert!(matches!(connections.enter(client(1)), Entered::Full));
    drop(busy);
    drop(member);
    assert!(enter(&connections).is_some());
}

#[tokio::test]
async fn a_new_connection_waits_for_one_whose_response_is_being_sent() {
    let connections = Arc::new(Connections::new(1));
    let member = enter(&connections).unwrap();
    drop(member.begin());
    let queued = || match connections.enter(client(1)) {
        Entered::Queued(queued) => Box::pin(queued.member()),
        other => panic!("{other:?}"),
    };
    // Until the response is sent, its client must not be disconnected.
    assert!(queued().await.is_none());
    assert!(!is_evicted(&member));
    let mut waiting = queued();
    assert!(timeout(Duration::from_millis(50), &mut waiting).await.is_err());
    member.flushed();
    let replaces_at_once = tokio::select! {
        biased;
        queued = &mut waiting => queued.is_some(),
        () = std::future::ready(()) => false,
    };
    assert!(replaces_at_once && is_evicted(&member));
}

#[test]
fn a_new_connection_replaces_the_one_whose_body_is_slowest() {
    let connections = Arc::new(Connections::new(4));
    let steady = uploading(&connections, 1, 1 << 20, Duration::ZERO);
    let slow = uploading(&connections, 1, 1 << 20, MINUTE);
    let slower = uploading(&connections, 1, 1 << 20, 2 * MINUTE);
    let idle = enter(&connections).unwrap();
    let evicted =
        || [&steady.member, &slow.member, &slower.member, &idle].map(|member| is_evicted(member));
    let mut others = vec![];
    for expected in
        [[false, false, false, true], [false, false, true, true], [false, true, true, true]]
    {
        let other = enter(&connections).unwrap();
        others.push(other.begin());
        assert_eq!(evicted(), expected);
    }
    assert!(matches!(connections.enter(client(1)), Entered::Queued(_)));
    assert_eq!(evicted(), [false, true, true, true]);
    assert_eq!(status(&slow.member, &limits()), Some(408));
    // It sent nothing.
    assert_eq!(status(&idle, &limits()), None);
}

#[test]
fn a_connection_whose_body_has_arrived_is_not_evicted() {
    let connections = Arc::new(Connections::new(1));
    let complete = uploading(&connections, 1, 10, MINUTE);
    complete.member.complete(true);
    assert!(matches!(connections.enter(client(1)), Entered::Full));
}

#[test]
fn a_body_is_not_evicted_while_an_earlier_response_is_not_sent() {
    let connections = Arc::new(Connections::new(1));
    let member = enter(&connections).unwrap();
    drop(member.begin());
    // Pipelined.
    let _busy = member.begin();
    member.connection.lock().phase = Phase::Body(Pace::new(Instant::now() - MINUTE));
    assert!(enter(&connections).is_none());
    member.flushed();
    assert!(enter(&connections).is_some());
    assert!(is_evicted(&member));
}

#[tokio::test]
async fn a_queued_connection_replaces_a_body_that_becomes_slow() {
    let connections = Arc::new(Connections::new(2));
    let stalled = uploading(&connections, 1, 1 << 20, Duration::ZERO);
    let busy = enter(&connections).unwrap();
    let _request = busy.begin();
    let Entered::Queued(queued) = connections.enter(client(1)) else { panic!("not queued") };
    assert!(queued.member().await.is_some());
    assert_eq!([&stalled.member, &busy].map(|member| is_evicted(member)), [true, false]);
}

#[tokio::test]
async fn queued_connections_get_the_places_of_those_that_end_in_order() {
    let connections = Arc::new(Connections::new(1));
    let upload = uploading(&connections, 1, 1, Duration::ZERO);
    // It stays in time for longer than they wait.
    let mut pace = Pace::new(Instant::now());
    pace.slow_at += MINUTE;
    upload.member.connection.lock().phase = Phase::Body(pace);
    let queued = || match connections.enter(client(1)) {
        Entered::Queued(queued) => Box::pin(queued.member()),
        other => panic!("{other:?}"),
    };
    let (mut first, mut second) = (queued(), queued());
    let moment = Duration::from_millis(50);
    assert!(timeout(moment, &mut first).await.is_err());
    assert!(timeout(moment, &mut second).await.is_err());
    drop(upload);
    let member = first.await.unwrap();
    assert!(timeout(moment, &mut second).await.is_err());
    drop(member);
    assert!(second.await.is_some());
}

#[tokio::test]
async fn a_queued_connection_gets_no_place_of_a_steady_body() {
    let connections = Arc::new(Connections::new(1));
    let upload = uploading(&connections, 1, 1, Duration::ZERO);
    let Entered::Queued(queued) = connections.enter(client(1)) else { panic!("not queued") };
    let mut queued = Box::pin(queued.member());
    let refused = loop {
        tokio::select! {
            member = &mut queued => break member.is_none(),
            () = tokio::time::sleep(Duration::from_millis(50)) => upload.member.received_body(4096),
        }
    };
    assert!(refused && !is_evicted(&upload.member));
}

/// The memory of `uploads`, which have as much as was received.
fn reserved(memory: &Budget, uploads: &[&HalfSent]) -> Vec<Reserved> {
    let reserve = |upload: &&HalfSent| {
        let mut reserved = memory.for_client(upload.member.client());
        let Phase::Body(pace) = upload.member.phase() else { panic!("no body") };
        memory.grow(&mut reserved, pace.bytes).unwrap();
        reserved
    };
    uploads.iter().map(reserve).collect()
}

#[test]
fn slow_bodies_make_room_for_others() {
    let connections = Arc::new(Connections::new(9));
    let memory = Budget::of_clients(160 << 10, 1);
    let slow = uploading(&connections, 1, 10 << 10, MINUTE);
    let slower = uploading(&connections, 2, 10 << 10, 2 * MINUTE);
    let empty = uploading(&connections, 3, 0, 2 * MINUTE);
    let recent = uploading(&connections, 3, 10 << 10, 2 * GRACE);
    let asking = uploading(&connections, 1, 10 << 10, 3 * MINUTE);
    let _memory = reserved(&memory, &[&slow, &slower, &empty, &recent, &asking]);
    let evicted = || [&slow, &slower, &empty, &recent, &asking].map(|it| is_evicted(&it.member));
    assert!(asking.member.make_room(&memory, 10 << 10));
    assert_eq!(evicted(), [false, true, false, false, false]);
    assert!(!asking.member.make_room(&memory, 20 << 10));
    assert_eq!(evicted(), [true, true, false, false, false]);
    assert_eq!(status(&slow.member, &limits()), Some(408));
}

#[test]
fn bodies_of_a_client_over_its_share_make_room_for_others() {
    let connections = Arc::new(Connections::new(9));
    let memory = Budget::of_clients(160 << 10, 1);
    let small = uploading(&connections, 1, 30 << 10, Duration::ZERO);
    let large = uploading(&connections, 1, 60 << 10, Duration::ZERO);
    let other = uploading(&connections, 2, 60 << 10, Duration::ZERO);
    let same = uploading(&connections, 1, 0, Duration::ZERO);
    let _memory = reserved(&memory, &[&small, &large, &other, &same]);
    // A client over its share gets nothing of others, nor of its own.
    assert!(!same.member.make_room(&memory, 10 << 10));
    // Another gets what completes its share, and not more.
    assert!(!other.member.make_room(&memory, 21 << 10));
    assert!(other.member.make_room(&memory, 20 << 10));
    let evicted = [&small, &large, &other, &same].map(|it| is_evicted(&it.member));
    assert_eq!(evicted, [false, true, false, false]);
    assert_eq!(status(&large.member, &limits()), Some(503));
}

#[test]
fn a_header_is_timed_from_its_first_byte_and_an_idle_connection_from_its_last_response() {
    let limits = limits();
    let connections = Arc::new(Connections::new(1));
    let member = enter(&connections).unwrap();
    let until = |member: &Member| member.snapshot().deadline(&limits).unwrap() - Instant::now();
    assert!(until(&member) <= limits.timeout_header);
    drop(member.begin());
    assert_eq!(member.snapshot().deadline(&limits), None);
    member.flushed();
    assert!(matches!(member.snapshot().phase, Phase::Idle { .. }));
    assert!(until(&member) > limits.timeout_header);
    member.received();
    assert!(matches!(member.snapshot().phase, Phase::Header { .. }));
    assert!(until(&member) <= limits.timeout_header);
    assert!(member.snapshot().ended(&limits, false).is_none());
    assert_eq!(member.snapshot().ended(&limits, true), Some(Reason::Closing));
}
