use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn pool(urls: &[&str], concurrency: usize) -> Pool {
    let endpoints = urls.iter().map(|url| Endpoint::chat(url).unwrap()).collect();
    let policy = RetryPolicy {
        initial_backoff: SECOND,
        max_backoff: 30 * SECOND,
        max_retry_after: 600 * SECOND,
        max_retries: 5,
    };
    Pool::new(endpoints, concurrency, policy)
}

fn acquire_at<'a>(pool: &'a Pool, history: &AttemptHistory, now: Instant) -> Option<Permit<'a>> {
    match pool.select(history, now).unwrap() {
        Selection::Now(permit) => Some(permit),
        Selection::Later(_) => None,
    }
}

/// The endpoints that this many concurrent requests are assigned to.
fn assignments(pool: &Pool, requests: usize) -> Vec<usize> {
    let now = Instant::now();
    let permits: Vec<_> =
        (0..requests).map(|_| acquire_at(pool, &pool.history(), now).unwrap()).collect();
    permits.iter().map(Permit::index).collect()
}

fn fail(permit: Permit<'_>) -> bool {
    permit.report(ResponseClass::Unreachable("dead".to_owned()))
}

/// Lets the endpoint fail until its circuit opens.
fn open_circuit(pool: &Pool, index: usize) {
    while pool.lock()[index].breaker.failure().is_none() {
        let permit = acquire_at(pool, &pool.history(), Instant::now()).unwrap();
        if permit.index() == index {
            fail(permit);
        }
    }
}

#[test]
fn requests_are_balanced_round_robin() {
    assert_eq!(assignments(&pool(&["http://a", "http://b", "http://c"], 9), 5), [0, 1, 2, 0, 1]);
}

#[test]
fn an_endpoint_of_twice_the_weight_gets_two_of_three() {
    let weighted = pool(&["http://a#weight=2", "http://b"], 9);
    assert_eq!(assignments(&weighted, 6), [0, 1, 0, 0, 1, 0]);
}

#[test]
fn the_concurrency_is_split_by_weight() {
    let pool = pool(&["http://a#weight=3", "http://b"], 8);
    let assigned = assignments(&pool, 8);
    assert_eq!(assigned.iter().filter(|&&index| index == 0).count(), 6);
    assert!(
        acquire_at(&pool, &pool.history(), Instant::now()).is_some(),
        "the permits are released"
    );
}

#[test]
fn requests_skip_an_endpoint_at_its_concurrency_limit() {
    let pool = pool(&["http://a", "http://b"], 4);
    let now = Instant::now();
    let permits: Vec<_> =
        (0..4).map(|_| acquire_at(&pool, &pool.history(), now).unwrap()).collect();
    assert!(acquire_at(&pool, &pool.history(), now).is_none());
    let freed = permits.into_iter().find(|permit| permit.index() == 1);
    drop(freed);
    assert_eq!(acquire_at(&pool, &pool.history(), now).unwrap().index(), 1);
}

#[test]
fn a_failed_request_moves_to_another_endpoint_at_once() {
    let pool = pool(&["http://a", "http://b"], 9);
    let (mut history, now) = (pool.history(), Instant::now());
    history.failed(0, false);
    history.wait(0, now + SECOND);
    assert_eq!(acquire_at(&pool, &history, now).unwrap().index(), 1);
    history.failed(1, false);
    history.wait(1, now + 2 * SECOND);
    assert!(
        matches!(pool.select(&history, now).unwrap(), Selection::Later(Some(t)) if t == now + SECOND)
    );
    assert_eq!(acquire_at(&pool, &history, now + SECOND).unwrap().index(), 0);
}

#[test]
fn retry_after_blocks_an_endpoint_for_every_request() {
    let pool = pool(&["http://a", "http://b"], 9);
    let now = Instant::now();
    let permit = acquire_at(&pool, &pool.history(), now).unwrap();
    permit.block_until(now + 60 * SECOND);
    permit.block_until(now + SECOND);
    drop(permit);
    for _ in 0..3 {
        assert_eq!(acquire_at(&pool, &pool.history(), now + 2 * SECOND).unwrap().index(), 1);
    }
}

#[test]
fn a_retry_after_beyond_the_limit_fails_once_no_other_endpoint_is_left() {
    let pool = pool(&["http://a", "http://b"], 9);
    let (history, now) = (pool.history(), Instant::now());
    acquire_at(&pool, &history, now).unwrap().block_until(now + 3600 * SECOND);
    assert_eq!(acquire_at(&pool, &history, now).unwrap().index(), 1);
    acquire_at(&pool, &history, now).unwrap().block_until(now + 7200 * SECOND);
    let error = pool.select(&history, now).err().unwrap().to_string();
    assert!(error.contains("`Retry-After` ends in 3600 s"), "{error}");
}

#[test]
fn a_dead_endpoint_gets_one_probe_after_the_open_time() {
    let pool = pool(&["http://a", "http://b"], 9);
    open_circuit(&pool, 0);
    let now = Instant::now();
    assert_eq!(assignments(&pool, 3), [1, 1, 1]);
    let later = now + 2 * SECOND;
    let permits: Vec<_> =
        (0..4).map(|_| acquire_at(&pool, &pool.history(), later).unwrap()).collect();
    assert_eq!(permits.iter().filter(|permit| permit.index() == 0).count(), 1);
}

#[test]
fn a_successful_probe_restores_a_dead_endpoint() {
    let pool = pool(&["http://a"], 9);
    open_circuit(&pool, 0);
    let later = Instant::now() + 2 * SECOND;
    acquire_at(&pool, &pool.history(), later).unwrap().report(ResponseClass::Success);
    assert_eq!(assignments(&pool, 4), [0, 0, 0, 0]);
}

#[test]
fn failed_probes_of_other_requests_count_for_waiting_ones() {
    let pool = pool(&["http://a"], 9);
    open_circuit(&pool, 0);
    let waiting = pool.history();
    let mut later = Instant::now();
    for _ in 0..5 {
        later += 60 * SECOND;
        assert!(pool.select(&waiting, Instant::now()).is_ok());
        assert!(fail(acquire_at(&pool, &pool.history(), later).unwrap()));
    }
    later += 60 * SECOND;
    fail(acquire_at(&pool, &pool.history(), later).unwrap());
    let error = pool.select(&waiting, later).err().unwrap();
    assert_eq!(
        error.to_string(),
        "`http://a/chat/completions` is not available: it has failed 9 times in a row: dead"
    );
    assert!(error.is_retryable());
}

#[test]
fn a_disabled_endpoint_is_not_used_and_the_last_one_is_never_disabled() {
    let pool = pool(&["http://a", "http://b"], 9);
    let permit = acquire_at(&pool, &pool.history(), Instant::now()).unwrap();
    assert!(permit.disable());
    assert_eq!(assignments(&pool, 3), [1, 1, 1]);
    assert!(!acquire_at(&pool, &pool.history(), Instant::now()).unwrap().disable());
}

#[test]
fn an_overloaded_endpoint_halves_its_limit_and_an_unreachable_one_keeps_it() {
    for (class, limit) in [
        (ResponseClass::RateLimited, 2),
        (ResponseClass::Failed("500".into()), 2),
        (ResponseClass::Unreachable("cut".into()), 4),
    ] {
        let pool = pool(&["http://a"], 4);
        let now = Instant::now();
        let mut permits: Vec<_> =
            (0..4).map(|_| acquire_at(&pool, &pool.history(), now).unwrap()).collect();
        permits.pop().unwrap().report(class);
        drop(permits);
        assert_eq!(assignments(&pool, limit).len(), limit);
        let permits: Vec<_> =
            (0..limit).map(|_| acquire_at(&pool, &pool.history(), now).unwrap()).collect();
        assert!(acquire_at(&pool, &pool.history(), now).is_none(), "{}", permits.len());
    }
}

#[tokio::test]
async fn a_request_waits_for_a_permit() {
    let pool = std::sync::Arc::new(pool(&["http://a"], 1));
    let history = pool.history();
    let first = pool.acquire(&history).await.unwrap();
    let waiting = tokio::spawn({
        let pool = std::sync::Arc::clone(&pool);
        async move { pool.acquire(&pool.history()).await.unwrap().index() }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(first);
    assert_eq!(waiting.await.unwrap(), 0);
}
