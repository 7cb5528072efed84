//! What an operator permits a transfer to be: `ist-only`, `retry-limit`, `max-transfer` and `full-only-between` under `[sst]`.
//!
//! Each node keeps to its own limits. They are compared with the plan, before anything is sent.
use std::fmt;
use std::path::Path;

use anyhow::Result;

use crate::failure::{Failure, Kind};
use crate::human::size;
use crate::server::options::ServerOptions;

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// About what a transfer of files will send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedTransfer {
    /// All files are sent because nothing is compared, or all rows.
    pub full: bool,
    /// Bytes, as the plan line estimates them.
    pub bytes: u64,
}

/// The limits of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferLimits {
    /// `ist-only`: this node joins by write-sets or not at all.
    pub ist_only: bool,
    /// `retry-limit`: how many joins in a row may receive files without bringing this node to Synced.
    pub retry_limit: Option<u32>,
    /// `max-transfer`: bytes.
    pub max_transfer: Option<u64>,
    /// `full-only-between`.
    pub full_only_between: Option<Hours>,
}

impl TransferLimits {
    /// Reads the options.
    ///
    /// # Errors
    /// An invalid value, with the name of its option.
    pub fn read(options: &ServerOptions) -> Result<TransferLimits> {
        let hours = options.sst("full-only-between").filter(|text| !text.is_empty());
        Ok(TransferLimits {
            ist_only: options.sst_bool("ist-only")?.unwrap_or(false),
            retry_limit: options.sst_number("retry-limit")?.filter(|tries| *tries > 0),
            max_transfer: options.sst_size("max-transfer")?.filter(|bytes| *bytes > 0),
            full_only_between: hours.map(Hours::read).transpose()?,
        })
    }

    /// Whether this node may receive files at all.
    ///
    /// # Errors
    /// `ist-only` forbids it.
    pub fn permit_files(&self) -> Result<(), Failure> {
        if !self.ist_only {
            return Ok(());
        }
        let text =
            "the donor would send files, and ist-only=1 under [sst] on the joiner permits write-sets only";
        Err(refused(
            text,
            "the joiner's datadir is unchanged; start it with ist-only=0 to receive files (`rejoin plan` tells how much), or \
             name a donor whose gcache or archive still has the write-sets that are missing; ist=always there takes them \
             also where files would cost less",
        ))
    }

    /// Whether this node may receive files after so many joins in a row that failed. `count_file` has their number.
    ///
    /// # Errors
    /// `retry-limit` is reached.
    pub fn permit_try(&self, failed: u32, count_file: &Path) -> Result<(), Failure> {
        match self.retry_limit.filter(|limit| failed >= *limit) {
            None => Ok(()),
            Some(limit) => {
                let text = format!(
                    "the joiner's last {failed} joins received files and failed, and retry-limit={limit} under [sst] there permits no more"
                );
                let hint = format!(
                    "the joiner's datadir is unchanged; its rejoin-joiner-*.log name the reasons. When these are removed, run \
                     `rm {}` there, and start it",
                    count_file.display()
                );
                Err(refused(text, &hint))
            }
        }
    }

    /// Whether all rows, of files of so many bytes, may be given to a server that runs already. Nothing is compared with its data.
    ///
    /// # Errors
    /// The limit that they exceed.
    pub fn permit_rows(&self, bytes: u64, now: Minute) -> Result<(), Failure> {
        self.permit(PlannedTransfer { full: true, bytes }, now)
    }

    /// Whether about so many bytes may be sent.
    ///
    /// # Errors
    /// They are more than `max-transfer` permits.
    pub fn permit_bytes(&self, bytes: u64) -> Result<(), Failure> {
        match self.max_transfer.filter(|most| bytes > *most) {
            None => Ok(()),
            Some(most) => {
                let text = format!(
                    "about {} would be sent, and max-transfer under [sst] on this node permits {}",
                    size(bytes),
                    size(most)
                );
                Err(refused(text, "raise max-transfer there if that much may be sent"))
            }
        }
    }

    /// Whether this transfer may begin, at a minute of the day.
    ///
    /// # Errors
    /// The limit that it exceeds.
    pub fn permit(&self, planned: PlannedTransfer, now: Minute) -> Result<(), Failure> {
        self.permit_bytes(planned.bytes)?;
        match self.full_only_between.filter(|hours| planned.full && !hours.contain(now)) {
            None => Ok(()),
            Some(hours) => {
                let text = format!(
                    "a full transfer is needed, and full-only-between={hours} under [sst] on this node forbids it at {now}"
                );
                Err(refused(text, "start the joiner within these hours, or change full-only-between there"))
            }
        }
    }
}

fn refused(text: impl Into<String>, hint: &str) -> Failure {
    Failure::new(Kind::Refused, text).hint(hint)
}

/// A minute of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minute(u16);

impl Minute {
    /// As this host's clock shows it.
    pub fn now() -> Minute {
        let now = jiff::Zoned::now();
        Minute(now.hour().unsigned_abs() as u16 * 60 + now.minute().unsigned_abs() as u16)
    }

    fn read(text: &str) -> Option<Minute> {
        let (hour, minute) = text.split_once(':')?;
        let is_number = |text: &&str| text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = |text: &str| Some(text).filter(is_number)?.parse::<u16>().ok();
        let (hour, minute) = (number(hour)?, number(minute)?);
        (hour < 24 && minute < 60).then_some(Minute(hour * 60 + minute))
    }
}

impl fmt::Display for Minute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// Hours of the day, which may pass midnight. The last minute does not belong to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    from: Minute,
    to: Minute,
}

impl Hours {
    /// Of `HH:MM-HH:MM`.
    ///
    /// # Errors
    /// A text that is none, or hours without a minute.
    pub fn read(text: &str) -> Result<Hours, Failure> {
        let hours = text.split_once('-').and_then(|(from, to)| {
            Some(Hours { from: Minute::read(from.trim())?, to: Minute::read(to.trim())? })
        });
        hours.filter(|hours| hours.from != hours.to).ok_or_else(|| {
            let text = format!("[sst] full-only-between={text} is not a window such as 22:00-06:00");
            Failure::new(Kind::Configuration, text)
        })
    }

    fn contain(self, minute: Minute) -> bool {
        let since = |minute: Minute| (minute.0 + DAY - self.from.0) % DAY;
        since(minute) < since(self.to)
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from, self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Minute {
        Minute::read(text).expect("a minute")
    }

    #[test]
    fn hours_may_pass_midnight() {
        let night = Hours::read("22:00-06:00").expect("hours");
        for (time, within) in
            [("21:59", false), ("22:00", true), ("00:00", true), ("05:59", true), ("06:00", false)]
        {
            assert_eq!(night.contain(at(time)), within, "{time}");
        }
        let noon = Hours::read("11:30 - 13:00").expect("hours");
        assert!(noon.contain(at("12:00")) && !noon.contain(at("13:00")) && !noon.contain(at("11:29")));
        assert_eq!((night.to_string(), noon.to_string()), ("22:00-06:00".into(), "11:30-13:00".into()));
    }

    #[test]
    fn what_is_no_window_is_named() {
        for text in [
            "22-6",
            "22:00",
            "24:00-06:00",
            "22:60-06:00",
            "06:00-06:00",
            "a:b-c:d",
            "+1:00-2:00",
            "022:00-1:0",
        ] {
            let error = Hours::read(text).expect_err(text);
            assert!(error.text.contains(text) && error.kind == Kind::Configuration, "{error}");
        }
    }

    #[test]
    fn each_limit_refuses_what_is_beyond_it() {
        let day = at("12:00");
        let planned = |full, bytes| PlannedTransfer { full, bytes };
        let none = TransferLimits::default();
        assert!(none.permit(planned(true, u64::MAX), day).is_ok() && none.permit_files().is_ok());
        let small = TransferLimits { max_transfer: Some(100), ..none };
        assert!(small.permit(planned(true, 100), day).is_ok());
        assert!(small.permit(planned(false, 101), day).is_err());
        let night =
            TransferLimits { full_only_between: Some(Hours::read("22:00-06:00").expect("hours")), ..none };
        assert!(night.permit(planned(false, u64::MAX), day).is_ok());
        assert!(night.permit(planned(true, 1), day).is_err());
        assert!(night.permit(planned(true, 1), at("23:00")).is_ok());
        assert!(small.permit_rows(100, day).is_ok() && small.permit_rows(101, day).is_err());
        assert!(night.permit_rows(1, day).is_err() && night.permit_rows(1, at("05:00")).is_ok());
        assert!(TransferLimits { ist_only: true, ..none }.permit_files().is_err());
    }
}
