//! Claims about workers whose sandboxes are lost: by a batch that takes each of them, or all of them.

use super::*;

/// What became of a run in which lost batches are queued again.
#[derive(Default)]
struct Losses {
    executed: usize,
    lost: usize,
    dropped: Vec<String>,
    retired: usize,
}

/// Runs `count` batches; each is queued again after a loss, up to so many times.
fn losing(site: &'static Site, size: Size, times: usize, script: impl Fn(&Batch) -> bool + Sync) -> Losses {
    let Size { count, machines } = size;
    let cancel = Cancel::new();
    let provider = Provider(site);
    let bench =
        Script(
            |_, batch: &Batch, _: &Cancel| {
                if script(batch) { Err(ProviderError::Lost("gone".into())) } else { Ok(Exit::Code(0)) }
            },
        );
    let pool =
        Pool { provider: &provider, machines, limits: &[], spare: 0, executor: &bench, cancel: &cancel };
    let mut losses = Losses::default();
    let mut left: HashMap<u32, usize> = (0..count).map(|index| (index, times)).collect();
    run(&pool, batches(count), |event| {
        match event {
            Event::Finished { .. } => losses.executed += 1,
            Event::Lost { batch, .. } => {
                losses.lost += 1;
                let left = left.get_mut(&batch.index).unwrap();
                if *left > 0 {
                    *left -= 1;
                    return Reaction { batches: vec![batch], abandon: None };
                }
            }
            Event::Dropped { reason, .. } => losses.dropped.push(reason),
            Event::Retired { .. } => losses.retired += 1,
            _ => {}
        }
        Reaction::default()
    });
    assert_eq!(site.living.load(Ordering::SeqCst), 0, "a sandbox outlives the run");
    losses
}

#[test]
fn a_batch_that_takes_every_sandbox_with_it_retires_no_worker() {
    for machines in [1, 4] {
        let site = site(Site::default());
        let losses = losing(site, Size { count: 6, machines }, 8, |batch| batch.index == 3);
        assert_eq!((losses.executed, losses.lost, losses.retired), (5, 9, 0), "{machines}");
        assert!(site.made.load(Ordering::SeqCst) <= machines + 9);
    }
}

#[test]
fn the_first_batch_may_take_three_sandboxes_with_it_before_any_works() {
    let site = site(Site::default());
    let lost = AtomicUsize::new(0);
    let losses = losing(site, Size { count: 2, machines: 1 }, 8, |_| lost.fetch_add(1, Ordering::SeqCst) < 3);
    assert_eq!((losses.executed, losses.lost, losses.retired), (2, 3, 0));
}

#[test]
fn sandboxes_that_never_work_are_few() {
    for machines in [1, 4] {
        let site = site(Site::default());
        let losses = losing(site, Size { count: 9, machines }, usize::MAX, |_| true);
        assert_eq!((losses.executed, losses.dropped.len(), losses.retired), (0, 9, machines));
        let made = site.made.load(Ordering::SeqCst);
        assert!(made <= 3 * machines + 3, "{made} sandboxes of {machines} workers");
    }
}

#[test]
fn sandboxes_that_work_no_more_are_few() {
    for machines in [1, 4] {
        let site = site(Site::default());
        let worked = AtomicBool::new(false);
        let losses =
            losing(site, Size { count: 9, machines }, usize::MAX, |_| worked.swap(true, Ordering::SeqCst));
        assert_eq!((losses.executed, losses.dropped.len(), losses.retired), (1, 8, machines));
        let made = site.made.load(Ordering::SeqCst);
        assert!(made <= 3 * machines + 13, "{made} sandboxes of {machines} workers");
    }
}

#[test]
fn a_batch_that_no_sandbox_could_be_made_for_was_not_lost() {
    let site = site(Site { most: Some(1), ..Site::default() });
    let losses = losing(site, Size { count: 2, machines: 1 }, usize::MAX, |_| true);
    assert_eq!((losses.lost, losses.retired), (1, 1));
    assert_eq!(losses.dropped, ["no sandbox is left"; 2]);
}

#[test]
fn a_batch_that_is_lost_after_a_wish_to_stop_was_cancelled() {
    let cancel = Cancel::new();
    let script = |_: &Batch, _: &Cancel| {
        cancel.raise_gracefully();
        Err(ProviderError::Lost("ended".into()))
    };
    let (executed, dropped) = abandoning(Size { count: 3, machines: 1 }, &cancel, script, |_| None);
    assert_eq!((executed, dropped.len()), (vec![(0, Exit::Cancelled)], 2));
}
