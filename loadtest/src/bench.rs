//! Single parts measured against the least that could do their work, in one run: what the parts add is a ratio, which
//! holds on a noisy machine where a rate does not.
//!
//! Not here: the whole program under load (`scenario`, `run`).

pub mod bare;
pub mod ground;
pub mod journal;

use clap::Subcommand;

use super::Failure;

#[derive(Clone, Debug, Subcommand)]
pub enum Bench {
    /// The journal against a bare writer of batches of 256, and a few songs at once (about 40 s)
    Journal(journal::Wanted),
}

/// Always true: a bench measures, it does not judge.
pub async fn run(bench: Bench) -> Result<bool, Failure> {
    match bench {
        Bench::Journal(wanted) => journal::run(&wanted).await?,
    }
    Ok(true)
}

/// The middle one of a few, by nearest rank; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!(median(Vec::new()).abs() < f64::EPSILON);
    }
}
