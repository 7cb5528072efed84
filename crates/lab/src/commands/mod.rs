//! One file for each command.

pub mod bench;
pub mod chaos;
pub mod cluster;
pub mod cold;
pub mod deep_ist;
pub mod demo;
pub mod figures;
pub mod filesystem;
pub mod joins;
mod link;
pub mod moment;
mod observed;
pub mod outages;
mod record;
pub mod redo_table;
pub mod scale;
pub mod storm;
pub mod strangers;
pub mod throttle;
mod watch;

/// The one in the middle; NaN of none.
fn median(of: impl IntoIterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = of.into_iter().collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}
