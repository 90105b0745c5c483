//! What happens before there is a plan: tests are listed while the image is made.

use anyhow::anyhow;

use super::Options;
use crate::cancel::Cancel;
use crate::commands::estimates::Estimates;
use crate::commands::sandboxes::{self, SandboxSource};
use crate::commands::setup::Setup;
use crate::config::Config;
use crate::discover::Discovery;
use crate::error::Problem;
use crate::image::Found;
use crate::trace::Track;

/// What a run starts from.
pub(super) struct Start {
    pub(super) discovery: Discovery,
    pub(super) estimates: Estimates,
    pub(super) image: Found,
}

/// All that is needed to get there.
pub(super) struct Preparation<'a> {
    pub(super) config: &'a Config,
    pub(super) options: &'a Options,
    pub(super) setup: &'a Setup,
    pub(super) source: &'a SandboxSource,
    /// Ends the run.
    pub(super) cancel: &'a Cancel,
    /// Ends the preparation of the image.
    pub(super) preparing: &'a Cancel,
}

impl Preparation<'_> {
    /// Lists the tests, makes the image, and reads the history, all at the same time. The first failure
    /// stops the others.
    pub(super) fn start(&self) -> Result<Start, Problem> {
        let listing = self.cancel.child();
        let (discovery, image, estimates) = std::thread::scope(|scope| {
            let estimates = scope.spawn(|| Estimates::gather(self.config, &self.options.name()));
            let image = scope.spawn(|| self.image(&listing));
            let discovery = self.list(&listing);
            (discovery, image.join(), estimates.join())
        });
        let broken = |what: &str| anyhow!("{what} panicked; this is a bug in offload");
        let estimates = estimates.map_err(|_| broken("reading the history"))?;
        let image = image.map_err(|_| broken("preparing the image"))?;
        match (discovery, image) {
            (Ok(discovery), Ok(image)) => Ok(Start { discovery, estimates, image }),
            (Ok(discovery), Err(_)) if discovery.suite.tests().is_empty() => {
                Ok(Start { discovery, estimates, image: Found::default() })
            }
            (Err(problem), Err(_)) if !listing.is_raised() || self.cancel.is_raised() => Err(problem),
            (_, Err(problem)) | (Err(problem), Ok(_)) => Err(problem),
        }
    }

    fn image(&self, listing: &Cancel) -> Result<Found, Problem> {
        let _span = self.options.trace.span(Track::Image, || "image".into());
        let image = sandboxes::image(self.source, self.options.image_choice(), self.preparing);
        if image.is_err() && !self.preparing.is_raised() {
            listing.raise_gracefully();
        }
        image
    }

    fn list(&self, listing: &Cancel) -> Result<Discovery, Problem> {
        let span = self.options.trace.span(Track::Phases, || "discovery".into());
        let discovery = self.setup.discover(listing, &self.options.trace);
        drop(span);
        let has_tests = matches!(&discovery, Ok(discovery) if !discovery.suite.tests().is_empty());
        if !has_tests && !listing.is_raised() {
            // Without tests no image is needed.
            self.preparing.raise_gracefully();
        }
        discovery
    }
}
