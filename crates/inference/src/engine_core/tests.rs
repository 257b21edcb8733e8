use std::path::Path;
use std::sync::Mutex;

use embodied_r_policy::{Engine, EngineOptions, SamplingParams, WeightFormat, WeightPlacement};

use super::*;
use crate::model::Model;
use crate::worker::PromptRequest;

/// Fails for good at the first prompt.
struct FailingWorker;

impl Worker for FailingWorker {
    type Request = ();

    const ERRORS_ARE_FINAL: bool = true;

    fn samples((): &()) -> usize {
        1
    }

    fn submit(&mut self, _: Vec<()>, _: &[(RequestId, usize)]) -> Result<Vec<Result<RequestId>>> {
        Err(Error::Aborted)
    }

    fn step(&mut self) -> Result<Vec<EngineOutput>> {
        Ok(Vec::new())
    }

    fn stats(&self) -> EngineStats {
        EngineStats::default()
    }
}

#[tokio::test]
async fn waiting_and_later_tasks_get_the_error_that_ended_the_engine() {
    for _ in 0..50 {
        let (engine, core) = EngineCore::new(FailingWorker);
        core.spawn().unwrap();
        let submit = || engine.submit(vec![()], GenerationOptions::default());
        let pending: Vec<Generation> = (0..4).map(|_| submit()).collect();
        for mut generation in pending {
            let error = generation.next().await.unwrap_err();
            assert!(error.ends_engine(), "{error}");
            assert_eq!(error.to_string(), Error::Aborted.to_string());
        }
        let error = submit().next().await.unwrap_err();
        assert_eq!(error.to_string(), Error::Aborted.to_string());
    }
}

/// An engine whose first step fails.
struct StumblingWorker {
    engine: Engine,
    has_failed: bool,
}

impl Worker for StumblingWorker {
    type Request = PromptRequest;

    fn samples(request: &PromptRequest) -> usize {
        Engine::samples(request)
    }

    fn submit(
        &mut self,
        requests: Vec<PromptRequest>,
        cancelled: &[(RequestId, usize)],
    ) -> Result<Vec<Result<RequestId>>> {
        self.engine.submit(requests, cancelled)
    }

    fn step(&mut self) -> Result<Vec<EngineOutput>> {
        match std::mem::replace(&mut self.has_failed, true) {
            true => Worker::step(&mut self.engine),
            false => Err(Error::SlowReader),
        }
    }

    fn stats(&self) -> EngineStats {
        self.engine.stats()
    }
}

#[test]
fn a_failed_step_ends_its_requests_alone() {
    let worker = StumblingWorker { engine: policy_engine(), has_failed: false };
    let (client, mut core) = EngineCore::new(worker);
    let submit = |tokens| client.submit(vec![request(1, tokens)], GenerationOptions::default());
    let mut failed = submit(50);
    core.step_pending();
    let error = received(&mut failed).2.unwrap();
    assert!(matches!(&error, Error::Step(_)) && !error.ends_engine(), "{error:?}");
    let mut later = submit(1);
    core.step_pending();
    let (_, ends, failure) = received(&mut later);
    assert!(ends == [0] && failure.is_none(), "{ends:?}, {failure:?}");
    assert!(!core.has_work(), "the failed request has left the engine");
}

fn engine() -> (EngineClient<Engine>, EngineCore<Engine>) {
    EngineCore::new(policy_engine())
}

fn policy_engine() -> Engine {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../vision/tests/fixtures/flat"));
    let placement = WeightPlacement::from(WeightFormat::F32);
    let model = Model::load(folder, placement).unwrap();
    Engine::new(model.decoder, EngineOptions::default()).unwrap()
}

/// A request for `samples` completions of `tokens` tokens each.
fn request(samples: usize, tokens: usize) -> PromptRequest {
    let prompt = vec![5, 6, 7].into();
    let sampling = SamplingParams { max_new_tokens: tokens, ..SamplingParams::default() };
    PromptRequest::new(prompt, samples, 1, &Arc::new(sampling))
}

/// The choices of the tokens and of the ends that are there already, and the last error.
fn received(generation: &mut Generation) -> (Vec<usize>, Vec<usize>, Option<Error>) {
    let (mut tokens, mut ends, mut failure) = (Vec::new(), Vec::new(), None);
    while let Some(event) = generation.try_next() {
        match event {
            Ok(Event::Token { choice, .. }) => tokens.push(choice),
            Ok(Event::Finished { choice, .. }) => ends.push(choice),
            Ok(Event::Prefilled { .. }) => {}
            Err(error) => failure = Some(error),
        }
    }
    (tokens, ends, failure)
}

#[test]
fn choices_are_counted_over_all_samples_of_all_prompts() {
    let (client, mut core) = engine();
    let requests = vec![request(2, 1), request(1, 2)];
    let mut generation = client.submit(requests, GenerationOptions::default());
    core.step_pending();
    core.step_pending();
    let (tokens, ends, failure) = received(&mut generation);
    assert_eq!((sorted(tokens), sorted(ends)), (vec![0, 1, 2, 2], vec![0, 1, 2]));
    assert!(failure.is_none() && !core.has_work());
}

fn sorted(mut choices: Vec<usize>) -> Vec<usize> {
    choices.sort_unstable();
    choices
}

#[test]
fn a_cancelled_choice_has_no_further_events_and_the_others_go_on() {
    let (client, mut core) = engine();
    let mut generation = client.submit(vec![request(2, 3)], GenerationOptions::default());
    core.step_pending();
    received(&mut generation);
    generation.cancel(0);
    core.step_pending();
    core.step_pending();
    let (tokens, ends, _) = received(&mut generation);
    assert_eq!((tokens, ends), (vec![1, 1], vec![1]));
    assert!(!core.has_work());
}

#[test]
fn a_dropped_generation_leaves_the_engine() {
    let (client, mut core) = engine();
    let generation = client.submit(vec![request(2, 50)], GenerationOptions::default());
    core.step_pending();
    assert_eq!(client.stats().running, 2);
    drop(generation);
    core.step_pending();
    assert_eq!(client.stats().running, 0);
}

#[test]
fn a_reader_that_falls_behind_gets_an_error_and_its_request_ends() {
    let (client, mut core) = engine();
    let options = GenerationOptions { max_backlog_bytes: 1, ..GenerationOptions::default() };
    let mut generation = client.submit(vec![request(1, 50)], options);
    core.step_pending();
    let (tokens, _, failure) = received(&mut generation);
    assert!(tokens.is_empty() && matches!(failure, Some(Error::SlowReader)), "{failure:?}");
    core.step_pending();
    assert!(!core.has_work());
}

#[test]
fn a_permit_is_released_with_the_last_of_its_requests() {
    let (client, mut core) = engine();
    let permit = Arc::new(());
    let options =
        GenerationOptions { permit: Some(permit.clone()), ..GenerationOptions::default() };
    let _generation = client.submit(vec![request(2, 1), request(1, 2)], options);
    core.step_pending();
    assert_eq!(Arc::strong_count(&permit), 2);
    core.step_pending();
    assert_eq!(Arc::strong_count(&permit), 1);
}

/// Notes whether its generation had an event when it was released.
struct Watch(Arc<Mutex<Option<Generation>>>, Arc<Mutex<Option<bool>>>);

impl Drop for Watch {
    fn drop(&mut self) {
        let had_event = self.0.lock().unwrap().as_mut().unwrap().try_next().is_some();
        *self.1.lock().unwrap() = Some(had_event);
    }
}

#[test]
fn a_permit_is_released_before_the_last_event() {
    for last in [Ok(Event::Finished { choice: 0, finish: FinishReason::Stop }), Err(Error::Aborted)]
    {
        let (slot, seen) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
        let permit: Arc<dyn std::any::Any + Send + Sync> =
            Arc::new(Watch(slot.clone(), seen.clone()));
        let options = GenerationOptions { permit: Some(permit), ..GenerationOptions::default() };
        let (sender, generation) = EventSender::new(1, options);
        *slot.lock().unwrap() = Some(generation);
        sender.send_last(last);
        assert_eq!(*seen.lock().unwrap(), Some(false));
        assert!(slot.lock().unwrap().as_mut().unwrap().try_next().is_some());
    }
}

#[test]
fn a_rejected_prompt_is_named_and_an_abort_ends_the_others() {
    let (client, mut core) = engine();
    let mut faulty = request(1, 1);
    faulty.request.prompt = vec![u32::MAX].into();
    let options = GenerationOptions::default;
    let mut rejected = client.submit(vec![request(1, 1), faulty], options());
    let mut aborted = client.submit(vec![request(1, 50)], options());
    core.step_pending();
    let fault = received(&mut rejected).2.unwrap().to_string();
    assert!(fault.starts_with("sequence 1: token id 4294967295"), "{fault}");
    client.abort();
    core.step_pending();
    assert!(matches!(received(&mut aborted).2, Some(Error::Aborted)));
    assert!(!core.has_work());
}
