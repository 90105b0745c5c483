//! Claims about groups that have only so many batches at once.

use super::*;

/// How many batches of each of two groups run, and the most that did at once.
#[derive(Default)]
struct Gauge {
    now: [AtomicUsize; 2],
    most: [AtomicUsize; 2],
}

impl Gauge {
    fn enter(&self, group: usize) {
        let now = self.now[group].fetch_add(1, Ordering::SeqCst) + 1;
        self.most[group].fetch_max(now, Ordering::SeqCst);
    }

    fn leave(&self, group: usize) {
        self.now[group].fetch_sub(1, Ordering::SeqCst);
    }

    fn most(&self, group: usize) -> usize {
        self.most[group].load(Ordering::SeqCst)
    }
}

fn group(batch: &Batch) -> usize {
    usize::from(batch.group.0)
}

/// Runs `counts` batches of two groups, those of the first group before those of the second, on four machines. The
/// first group has at most `limit` batches at once.
fn run_limited(
    site: &'static Site,
    counts: [u32; 2],
    limit: usize,
    script: impl Fn(&Batch) -> Result<Exit, ProviderError> + Sync,
    observe: impl FnMut(Event) -> Reaction + Send,
) {
    let mut batches = batches(counts.iter().sum());
    for batch in batches.iter_mut().skip(counts[0] as usize) {
        batch.group = GroupIndex(1);
    }
    let provider = Provider(site);
    let executor = Script(|_, batch: &Batch, _: &Cancel| script(batch));
    let (cancel, limits) = (Cancel::new(), [GroupLimit { group: GroupIndex(0), most: limit }]);
    let pool = Pool {
        provider: &provider,
        machines: 4,
        limits: &limits,
        spare: 0,
        executor: &executor,
        cancel: &cancel,
    };
    run(&pool, batches, observe);
    assert_eq!(site.living.load(Ordering::SeqCst), 0, "a sandbox outlives the run");
}

#[test]
fn a_group_never_exceeds_its_limit_even_with_retries_while_others_go_on() {
    for limit in [1, 2] {
        let gauge = Gauge::default();
        let failed = Mutex::new(Vec::new());
        let mut ended = Vec::new();
        let script = |batch: &Batch| {
            gauge.enter(group(batch));
            // Neither the first batch of the group nor those of the other group end before these use all other
            // sandboxes.
            if batch.index == 0 || (group(batch) == 1 && batch.index < 20) {
                wait_for(|| gauge.most(1) >= 4 - limit);
            }
            std::thread::sleep(Duration::from_millis(1));
            gauge.leave(group(batch));
            Ok(Exit::Code(0))
        };
        run_limited(site(Site::default()), [12, 40], limit, script, |event| match event {
            Event::Finished { batch, .. } => {
                ended.push(batch.index);
                let mut failed = failed.lock().unwrap();
                // Every batch of the group comes back as two.
                if batch.group == GroupIndex(0) && batch.index < 12 && !failed.contains(&batch.index) {
                    failed.push(batch.index);
                    let again =
                        |more| Batch { index: batch.index + more, origin: Origin::Retry, ..batch.clone() };
                    return Reaction { batches: vec![again(100), again(200)], abandon: None };
                }
                Reaction::default()
            }
            Event::Dropped { reason, .. } => panic!("{reason}"),
            _ => Reaction::default(),
        });
        ended.sort_unstable();
        let expected: Vec<u32> = (0..52).chain(100..112).chain(200..212).collect();
        assert_eq!(ended, expected);
        assert_eq!(gauge.most(0), limit);
        assert!(gauge.most(1) >= 4 - limit);
    }
}

#[test]
fn sandboxes_that_the_limit_leaves_without_work_are_destroyed_and_a_lost_one_is_replaced() {
    let site = site(Site::default());
    let lost = AtomicBool::new(false);
    let script = |batch: &Batch| {
        if group(batch) == 1 {
            // All four sandboxes are needed at first.
            wait_for(|| site.made.load(Ordering::SeqCst) == 4);
            return Ok(Exit::Code(0));
        }
        if batch.index == 3 {
            // Only this one is of use.
            wait_for(|| site.living.load(Ordering::SeqCst) == 1);
            if !lost.swap(true, Ordering::SeqCst) {
                return Err(ProviderError::Lost("gone".into()));
            }
        }
        Ok(Exit::Code(0))
    };
    let (mut executed, mut retired) = (0, 0);
    run_limited(site, [6, 3], 1, script, |event| {
        match event {
            Event::Lost { batch, .. } => return Reaction { batches: vec![batch], abandon: None },
            Event::Finished { .. } => executed += 1,
            Event::Retired { .. } => retired += 1,
            Event::Dropped { reason, .. } => panic!("{reason}"),
            _ => {}
        }
        Reaction::default()
    });
    assert_eq!((executed, retired), (9, 0));
}

#[test]
fn no_more_sandboxes_are_made_than_the_limit_lets_work() {
    let site = site(Site::default());
    let mut executed = 0;
    run_limited(
        site,
        [9, 0],
        2,
        |_| Ok(Exit::Code(0)),
        |event| {
            executed += usize::from(matches!(event, Event::Finished { .. }));
            Reaction::default()
        },
    );
    assert_eq!(executed, 9);
    assert!(site.made.load(Ordering::SeqCst) <= 2);
}

#[test]
fn a_cancel_drops_what_the_limit_keeps_waiting() {
    let provider = Provider(site(Site::default()));
    let cancel = Cancel::new();
    let executor = Script(|_, _: &Batch, cancel: &Cancel| hang(cancel));
    let limits = [GroupLimit { group: GroupIndex(0), most: 1 }];
    let pool = Pool {
        provider: &provider,
        machines: 4,
        limits: &limits,
        spare: 0,
        executor: &executor,
        cancel: &cancel,
    };
    let mut dropped = Vec::new();
    run(&pool, batches(5), |event| {
        match event {
            Event::Started { .. } => cancel.raise_gracefully(),
            Event::Dropped { batch, .. } => dropped.push(batch.index),
            _ => {}
        }
        Reaction::default()
    });
    assert_eq!(dropped, [1, 2, 3, 4]);
}
