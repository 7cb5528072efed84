//! Full or incremental, and about how much that is: said on both hosts before anything is sent.
use anyhow::Result;
use protocol::marks::MarkKey;
use protocol::message::Message;
use protocol::sample::{Decision, Sample};

use crate::datadir::layout::Layout;
use crate::datadir::sample::shared;
use crate::peer::link::Link;

/// What there is to decide from.
pub(super) struct Grounds<'a> {
    pub layout: &'a Layout,
    /// Bytes of our files, as far as this source sends them.
    pub bytes: u64,
    /// The joiner has files that may be compared.
    pub base: bool,
    /// `incremental`.
    pub incremental: bool,
    /// Of pages in two versions only what differs may be sent.
    pub parts: bool,
}

impl Grounds<'_> {
    /// The key to compare with, when the joiner's files are compared. A joiner that gave a sample hears the plan.
    pub fn decide(
        &self,
        link: &mut Link,
        key: Option<MarkKey>,
        sample: Option<&Sample>,
    ) -> Result<Option<MarkKey>> {
        let bytes = self.bytes;
        let full = |why: &str| (None, None, format!("plan: full, {bytes} bytes: {why}"));
        let (key, about, line) = match (key, sample) {
            (Some(key), Some(sample)) => {
                let shared = shared(self.layout, sample, &key, self.parts);
                let looked_at = sample.blocks.len();
                match sample.decide(shared, bytes) {
                    Decision::Full => {
                        full(&format!("none of {looked_at} sampled blocks of the joiner is as here"))
                    }
                    Decision::Incremental { about, in_parts } => {
                        let parts = match in_parts < about {
                            true => format!(", {in_parts} where parts of pages are sent"),
                            false => String::new(),
                        };
                        let line = format!(
                            "plan: incremental, about {about} of {bytes} bytes{parts} (estimated: {} of {looked_at} sampled \
                             blocks of the joiner are as here)",
                            shared.same
                        );
                        (Some(key), Some(about), line)
                    }
                }
            }
            _ if !self.incremental => full("incremental=0 is set on the donor"),
            _ if !self.base => {
                full("the joiner compares nothing (incremental=0, or it replaces its files in place)")
            }
            _ => full("the joiner gave no sample"),
        };
        tracing::info!("{line}");
        link.note(&line)?;
        if sample.is_some() {
            link.send(&Message::Plan { about })?;
        }
        Ok(key)
    }
}
