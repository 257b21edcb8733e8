use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn pool(urls: &[&str], concurrency: usize) -> Pool {
    let endpoints = urls.iter().map(|url| Endpoint::chat(url).unwrap()).collect();
    let patience = Patience {
        first_wait: SECOND,
        longest_wait: 30 * SECOND,
        longest_hold: 600 * SECOND,
        max_retries: 5,
    };
    Pool::new(endpoints, concurrency, patience)
}

fn now_at<'a>(pool: &'a Pool, route: &Route, now: Instant) -> Option<Place<'a>> {
    match pool.pick(route, now).unwrap() {
        Pick::Now(place) => Some(place),
        Pick::Later(_) => None,
    }
}

/// The endpoints of so many requests that are sent now.
fn spread(pool: &Pool, requests: usize) -> Vec<usize> {
    let now = Instant::now();
    let places: Vec<_> = (0..requests).map(|_| now_at(pool, &pool.route(), now).unwrap()).collect();
    places.iter().map(Place::index).collect()
}

fn fail(place: Place<'_>) -> bool {
    place.tell(Verdict::Unreachable("dead".to_owned()))
}

/// Lets the first endpoint fail until it is left alone.
fn open_circuit(pool: &Pool, index: usize) {
    while pool.lock()[index].circuit.illness().is_none() {
        let place = now_at(pool, &pool.route(), Instant::now()).unwrap();
        if place.index() == index {
            fail(place);
        }
    }
}

#[test]
fn requests_go_round() {
    assert_eq!(spread(&pool(&["http://a", "http://b", "http://c"], 9), 5), [0, 1, 2, 0, 1]);
}

#[test]
fn an_endpoint_of_twice_the_weight_gets_two_of_three() {
    let weighted = pool(&["http://a#weight=2", "http://b"], 9);
    assert_eq!(spread(&weighted, 6), [0, 1, 0, 0, 1, 0]);
}

#[test]
fn the_places_are_split_by_weight() {
    let pool = pool(&["http://a#weight=3", "http://b"], 8);
    let spread = spread(&pool, 8);
    assert_eq!(spread.iter().filter(|&&index| index == 0).count(), 6);
    assert!(now_at(&pool, &pool.route(), Instant::now()).is_some(), "the places are free again");
}

#[test]
fn a_full_endpoint_gives_way_to_one_with_room() {
    let pool = pool(&["http://a", "http://b"], 4);
    let now = Instant::now();
    let places: Vec<_> = (0..4).map(|_| now_at(&pool, &pool.route(), now).unwrap()).collect();
    assert!(now_at(&pool, &pool.route(), now).is_none());
    let freed = places.into_iter().find(|place| place.index() == 1);
    drop(freed);
    assert_eq!(now_at(&pool, &pool.route(), now).unwrap().index(), 1);
}

#[test]
fn a_failed_endpoint_gives_way_to_the_others_at_once() {
    let pool = pool(&["http://a", "http://b"], 9);
    let (mut route, now) = (pool.route(), Instant::now());
    route.failed(0, false);
    route.wait(0, now + SECOND);
    assert_eq!(now_at(&pool, &route, now).unwrap().index(), 1);
    route.failed(1, false);
    route.wait(1, now + 2 * SECOND);
    assert!(matches!(pool.pick(&route, now).unwrap(), Pick::Later(Some(t)) if t == now + SECOND));
    assert_eq!(now_at(&pool, &route, now + SECOND).unwrap().index(), 0);
}

#[test]
fn an_endpoint_that_asked_for_it_is_left_alone_by_every_request() {
    let pool = pool(&["http://a", "http://b"], 9);
    let now = Instant::now();
    let place = now_at(&pool, &pool.route(), now).unwrap();
    place.hold(now + 60 * SECOND);
    place.hold(now + SECOND);
    drop(place);
    for _ in 0..3 {
        assert_eq!(now_at(&pool, &pool.route(), now + 2 * SECOND).unwrap().index(), 1);
    }
}

#[test]
fn a_hold_beyond_patience_is_an_error_once_nothing_else_is_left() {
    let pool = pool(&["http://a", "http://b"], 9);
    let (route, now) = (pool.route(), Instant::now());
    now_at(&pool, &route, now).unwrap().hold(now + 3600 * SECOND);
    assert_eq!(now_at(&pool, &route, now).unwrap().index(), 1);
    now_at(&pool, &route, now).unwrap().hold(now + 7200 * SECOND);
    let error = pool.pick(&route, now).err().unwrap().to_string();
    assert!(error.contains("left alone for 3600 s"), "{error}");
}

#[test]
fn a_dead_endpoint_gets_one_request_after_its_rest() {
    let pool = pool(&["http://a", "http://b"], 9);
    open_circuit(&pool, 0);
    let now = Instant::now();
    assert_eq!(spread(&pool, 3), [1, 1, 1]);
    let later = now + 2 * SECOND;
    let places: Vec<_> = (0..4).map(|_| now_at(&pool, &pool.route(), later).unwrap()).collect();
    assert_eq!(places.iter().filter(|place| place.index() == 0).count(), 1);
}

#[test]
fn the_single_request_brings_a_dead_endpoint_back() {
    let pool = pool(&["http://a"], 9);
    open_circuit(&pool, 0);
    let later = Instant::now() + 2 * SECOND;
    now_at(&pool, &pool.route(), later).unwrap().tell(Verdict::Good);
    assert_eq!(spread(&pool, 4), [0, 0, 0, 0]);
}

#[test]
fn what_others_find_out_counts_for_those_who_wait() {
    let pool = pool(&["http://a"], 9);
    open_circuit(&pool, 0);
    let waiting = pool.route();
    let mut later = Instant::now();
    for _ in 0..5 {
        later += 60 * SECOND;
        assert!(pool.pick(&waiting, Instant::now()).is_ok());
        assert!(fail(now_at(&pool, &pool.route(), later).unwrap()));
    }
    later += 60 * SECOND;
    fail(now_at(&pool, &pool.route(), later).unwrap());
    let error = pool.pick(&waiting, later).err().unwrap();
    assert_eq!(
        error.to_string(),
        "`http://a/chat/completions` is not available: it has failed 9 times in a row: dead"
    );
    assert!(error.is_retryable());
}

#[test]
fn a_benched_endpoint_is_not_used_and_the_last_one_is_never_benched() {
    let pool = pool(&["http://a", "http://b"], 9);
    let place = now_at(&pool, &pool.route(), Instant::now()).unwrap();
    assert!(place.bench());
    assert_eq!(spread(&pool, 3), [1, 1, 1]);
    assert!(!now_at(&pool, &pool.route(), Instant::now()).unwrap().bench());
}

#[test]
fn an_overrun_endpoint_gets_half_as_many_and_an_unreachable_one_as_many_as_before() {
    for (verdict, room) in [
        (Verdict::Overrun, 2),
        (Verdict::Failed("500".into()), 2),
        (Verdict::Unreachable("cut".into()), 4),
    ] {
        let pool = pool(&["http://a"], 4);
        let now = Instant::now();
        let mut places: Vec<_> =
            (0..4).map(|_| now_at(&pool, &pool.route(), now).unwrap()).collect();
        places.pop().unwrap().tell(verdict);
        drop(places);
        assert_eq!(spread(&pool, room).len(), room);
        let places: Vec<_> =
            (0..room).map(|_| now_at(&pool, &pool.route(), now).unwrap()).collect();
        assert!(now_at(&pool, &pool.route(), now).is_none(), "{}", places.len());
    }
}

#[tokio::test]
async fn a_request_waits_for_a_place_and_gets_it() {
    let pool = std::sync::Arc::new(pool(&["http://a"], 1));
    let route = pool.route();
    let first = pool.place(&route).await.unwrap();
    let waiting = tokio::spawn({
        let pool = std::sync::Arc::clone(&pool);
        async move { pool.place(&pool.route()).await.unwrap().index() }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(first);
    assert_eq!(waiting.await.unwrap(), 0);
}
