//! Claims about who gets what: retries, sandboxes in the making, and a collector that breaks down.

use super::*;

/// What runs where.
struct Case {
    site: &'static Site,
    count: u32,
    machines: usize,
    spare: usize,
}

/// Runs the batches of `case`; `observe` hears of each event.
fn run_on(
    case: &Case,
    script: impl Fn(usize, &Batch) -> Result<Exit, ProviderError> + Sync,
    observe: impl FnMut(Event) -> Reaction + Send,
) -> Cancel {
    let Case { site, count, machines, spare } = *case;
    let cancel = Cancel::new();
    let provider = Provider(site);
    let executor = Script(|slot, batch: &Batch, _: &Cancel| script(slot, batch));
    let pool =
        Pool { provider: &provider, machines, limits: &[], spare, executor: &executor, cancel: &cancel };
    run(&pool, batches(count), observe);
    assert_eq!(site.living.load(Ordering::SeqCst), 0, "a sandbox outlives the run");
    cancel
}

fn retry(batch: &Batch, index: u32) -> Batch {
    Batch { index, origin: Origin::Retry, ..batch.clone() }
}

#[test]
fn a_retry_runs_in_the_sandbox_that_is_there_while_others_are_being_made() {
    let site = site(Site { slow: vec![1, 2], ..Site::default() });
    let mut retried_in = None;
    run_on(
        &Case { site, count: 3, machines: 3, spare: 0 },
        |_, _| Ok(Exit::Code(0)),
        |event| match event {
            // The last of the planned batches: nothing else waits for a sandbox.
            Event::Finished { batch, .. } if batch.index == 2 => {
                Reaction { batches: vec![retry(&batch, 77)], abandon: None }
            }
            Event::Started { slot, batch } if batch.index == 77 => {
                retried_in = Some(slot);
                Reaction::default()
            }
            Event::Settled => {
                site.released.store(true, Ordering::SeqCst);
                Reaction::default()
            }
            _ => Reaction::default(),
        },
    );
    assert_eq!(retried_in, Some(0));
}

#[test]
fn a_retry_runs_elsewhere_where_another_sandbox_is_idle() {
    let site = site(Site::default());
    let ended = AtomicUsize::new(0);
    let script = |_, batch: &Batch| {
        if batch.index == 0 {
            wait_for(|| ended.load(Ordering::SeqCst) == 1);
        }
        Ok(Exit::Code(0))
    };
    let mut slots = HashMap::new();
    run_on(&Case { site, count: 2, machines: 2, spare: 1 }, script, |event| match event {
        Event::Finished { batch, .. } if batch.index == 1 => {
            ended.store(1, Ordering::SeqCst);
            Reaction::default()
        }
        Event::Finished { batch, .. } if batch.index == 0 => {
            Reaction { batches: vec![retry(&batch, 77)], abandon: None }
        }
        Event::Started { slot, batch } => {
            slots.insert(batch.index, slot);
            Reaction::default()
        }
        _ => Reaction::default(),
    });
    assert_ne!(slots[&77], slots[&0]);
}

#[test]
fn a_sandbox_that_works_is_not_the_one_that_leaves() {
    // Three idle sandboxes leave while a fourth works on a batch of one test; its retry then runs in it.
    let site = site(Site::default());
    let mut made_at_retry = None;
    let script = |_, batch: &Batch| {
        if batch.index == 0 {
            wait_for(|| site.made.load(Ordering::SeqCst) == 4 && site.living.load(Ordering::SeqCst) == 1);
        }
        Ok(Exit::Code(0))
    };
    run_on(&Case { site, count: 8, machines: 4, spare: 0 }, script, |event| match event {
        Event::Finished { batch, .. } if batch.index == 0 => {
            Reaction { batches: vec![retry(&batch, 77)], abandon: None }
        }
        Event::Finished { batch, .. } if batch.index == 77 => {
            made_at_retry = Some(site.made.load(Ordering::SeqCst));
            Reaction::default()
        }
        _ => Reaction::default(),
    });
    assert_eq!(made_at_retry, Some(4), "the retry waited for another sandbox");
}

#[test]
fn a_batch_is_given_only_to_a_sandbox_that_is_there() {
    // The sandbox of the first worker is lost, and its next one is never made: the batch runs elsewhere.
    let site = site(Site { most: Some(2), ..Site::default() });
    let lost = AtomicBool::new(false);
    let script = |_, batch: &Batch| {
        if batch.index == 0 && !lost.swap(true, Ordering::SeqCst) {
            return Err(ProviderError::Lost("gone".into()));
        }
        Ok(Exit::Code(0))
    };
    let (mut executed, mut dropped) = (Vec::new(), 0);
    run_on(&Case { site, count: 6, machines: 2, spare: 0 }, script, |event| match event {
        Event::Lost { batch, .. } => Reaction { batches: vec![batch], abandon: None },
        Event::Finished { batch, .. } => {
            executed.push(batch.index);
            Reaction::default()
        }
        Event::Dropped { .. } => {
            dropped += 1;
            Reaction::default()
        }
        _ => Reaction::default(),
    });
    executed.sort_unstable();
    assert_eq!((executed, dropped), ((0..6).collect(), 0));
}

#[test]
fn a_panic_of_a_create_counts_as_a_failure_of_its_worker() {
    let site = site(Site { broken: vec![1], ..Site::default() });
    let (mut executed, mut retired) = (0, Vec::new());
    // More batches than sandboxes can be made for at once, so that the worker is asked again and again.
    let script = |slot, _: &Batch| {
        if slot == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Exit::Code(0))
    };
    run_on(&Case { site, count: 40, machines: 2, spare: 0 }, script, |event| {
        match event {
            Event::Finished { .. } => executed += 1,
            Event::Retired { slot, error } => retired.push((slot, error)),
            _ => {}
        }
        Reaction::default()
    });
    assert_eq!((executed, retired.len()), (40, 1));
    assert!(retired[0].0 == 1 && retired[0].1.contains("bug in offload"), "{retired:?}");
}

#[test]
fn a_collector_that_panics_cancels_the_run_and_every_sandbox_is_destroyed() {
    for at in 0..4 {
        let site = site(Site::default());
        let (mut heard, mut settled) = (0, false);
        let cancel = run_on(
            &Case { site, count: 200, machines: 4, spare: 0 },
            |_, _| Ok(Exit::Code(0)),
            |event| {
                if matches!(event, Event::Finished { .. }) {
                    heard += 1;
                    assert!(heard <= at, "expected by this test");
                }
                settled |= matches!(event, Event::Settled);
                Reaction::default()
            },
        );
        assert!(cancel.is_raised() && !settled, "{at}");
    }
}

#[test]
fn a_collector_that_is_slow_keeps_no_sandbox_waiting() {
    let site = site(Site::default());
    let done = AtomicUsize::new(0);
    let script = |_, _: &Batch| {
        done.fetch_add(1, Ordering::SeqCst);
        Ok(Exit::Code(0))
    };
    run_on(&Case { site, count: 50, machines: 2, spare: 0 }, script, |event| {
        if matches!(&event, Event::Finished { .. }) {
            // The first report is still being read when the last batch is done.
            wait_for(|| done.load(Ordering::SeqCst) == 50);
        }
        Reaction::default()
    });
}

#[test]
fn no_sandbox_is_made_by_a_worker_that_is_still_destroying_one() {
    // The lost sandbox is not destroyed before the end, and by then nothing needs another.
    let site = site(Site { is_patient: true, ..Site::default() });
    let lost = AtomicUsize::new(0);
    let script = |_, batch: &Batch| {
        if batch.index == 0 && lost.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(ProviderError::Lost("gone".into()));
        }
        if batch.index == 1 {
            wait_for(|| lost.load(Ordering::SeqCst) > 0);
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(Exit::Code(0))
    };
    let mut executed = 0;
    run_on(&Case { site, count: 2, machines: 2, spare: 0 }, script, |event| {
        match event {
            Event::Lost { batch, .. } => return Reaction { batches: vec![batch], abandon: None },
            Event::Finished { .. } => executed += 1,
            Event::Settled => site.told.store(true, Ordering::SeqCst),
            _ => {}
        }
        Reaction::default()
    });
    assert_eq!((executed, site.made.load(Ordering::SeqCst)), (2, 2));
}

#[test]
fn a_destroy_that_panics_ends_no_run() {
    let site = site(Site { is_explosive: true, ..Site::default() });
    let mut executed = 0;
    run_on(
        &Case { site, count: 6, machines: 3, spare: 0 },
        |_, _| Ok(Exit::Code(0)),
        |event| {
            executed += usize::from(matches!(event, Event::Finished { .. }));
            Reaction::default()
        },
    );
    assert_eq!(executed, 6);
}
