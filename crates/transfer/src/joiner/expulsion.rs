//! Decides when the joiner's server is told that the transfer failed.
//!
//! A joiner's server that is told by its program leaves the group. While the group still counts a dead donor as a
//! member, that is the second member lost at once, and the one that remains of three has no majority. The group
//! itself tells a joiner's server that its transfer failed: when it expels the donor, or when the donor's server
//! reports the failure. The provider then leaves the group in order and ends the server. So after a failure this
//! program waits for that, and reports the failure itself only if the group has not done so within the time in which
//! it expels a silent member.
use std::time::Duration;

use crate::failure::{Kind, kind_of};
use crate::job::Job;
use crate::server::log;
use crate::server::provider_options::{self, ProviderOptions, period_s};

/// Added to what the provider's options allow: the state exchange of the new view, and the end of our server.
const MARGIN: Duration = Duration::from_secs(2);

/// Waits until the group has ended our server, at most as long as the group takes to expel a silent donor. Does not
/// wait if our server has died, if we were told to stop, or after a panic, which ends this program soon in any case.
pub(super) fn wait_after_failure(job: &Job, error: &anyhow::Error) {
    if matches!(kind_of(error), Kind::Server | Kind::Stopped | Kind::Internal) || job.cancel.is_ended_now() {
        return;
    }
    let options = provider_options::parse(job.options.server("wsrep-provider-options").unwrap_or_default());
    let limit = expulsion_limit(&options);
    let seconds = limit.as_secs_f64();
    // Logged now: the server may end before this program does, and a supervisor may end both.
    log::error(&format!("joiner: state transfer failed: {error:#}"));
    job.progress.ledger.update(|record| record.outcome = Some(format!("{error:#}")));
    tracing::warn!(
        "waiting for the group to end this server, which happens when the donor's server reports the failure or the group expels the \
         donor; this program ends at the latest in {seconds} s (evs.inactive_timeout and evs.install_timeout). Ending earlier \
         could cost the other members their quorum"
    );
    // Nothing more arrives, so the progress must not show how much is left.
    job.progress.copies_nothing();
    job.progress.phase(&format!("failed; waiting up to {seconds} s for the group to expel the donor"), "");
    if !job.cancel.sleep_unless_ended(limit) {
        tracing::warn!(
            "the group has not ended this node's server within {seconds} s: the failure is reported to the server now"
        );
    }
}

/// How long a group may take to expel a member that died or fell silent, by the provider's options of this node: all
/// nodes are expected to have the same ones. A member is inactive at the latest after `evs.inactive_timeout`, which
/// is checked every `evs.inactive_check_period`; the others then agree on a view within `evs.install_timeout`.
fn expulsion_limit(options: &ProviderOptions) -> Duration {
    let seconds = |name: &str, default: f64| {
        let given = options.get(name).and_then(|value| period_s(value));
        given.filter(|seconds| (0.0..=3600.0).contains(seconds)).unwrap_or(default)
    };
    let inactive = seconds("evs.inactive_timeout", 15.0).max(seconds("evs.suspect_timeout", 5.0));
    let install = seconds("evs.install_timeout", inactive / 2.0);
    let check = seconds("evs.inactive_check_period", 0.5);
    Duration::from_secs_f64(inactive + install + 2.0 * check) + MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(options: &str) -> f64 {
        expulsion_limit(&provider_options::parse(options)).as_secs_f64()
    }

    #[test]
    fn the_limit_follows_the_providers_options() {
        assert_eq!(limit(""), 25.5, "the provider's defaults");
        assert_eq!(limit("gcache.size=1G; evs.inactive_timeout = PT6S"), 12.0);
        assert_eq!(
            limit("evs.suspect_timeout=PT30S;evs.inactive_timeout=PT1M;evs.install_timeout=PT20S"),
            83.0
        );
        assert_eq!(limit("EVS.SUSPECT_TIMEOUT=PT40S;evs.inactive_check_period=PT1S"), 64.0);
        assert_eq!(limit("evs.inactive_timeout=soon"), 25.5, "what cannot be read");
    }
}
