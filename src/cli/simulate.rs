//! `simulate`: attacks on these settings and on fixed prefix lengths, among users who mistype.
//!
//! For ten days nobody attacks, so that the right users become known; then the attack begins. The
//! same seed gives the same figures.

pub mod attack;
mod defence;
mod network;
mod people;
mod random;
#[cfg(test)]
mod tests;
mod trial;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use clap::ValueEnum;
use indicatif::ProgressBar;
use pam_prefixquota::config::Settings;
use serde_json::{Value, json};

use super::args::Simulate;
use super::{Context, Report, table};
use attack::Attacker;
use defence::Kind;
use random::Random;
use trial::{Figures, Share};

/// In milliseconds.
const DAY: i64 = 24 * 3_600 * 1_000;
/// When it all begins: any time will do, as long as it is always the same.
const START: i64 = 1_800_000_000_000;
/// Days before the attack.
const QUIET_DAYS: i64 = 10;

/// `simulate`.
pub fn simulate(context: &Context, args: &Simulate) -> Result<Report, String> {
    let attackers = match args.attack.as_slice() {
        [] => Attacker::value_variants(),
        some => some,
    };
    let trials: Vec<(Attacker, Kind)> = attackers
        .iter()
        .flat_map(|attacker| Kind::ALL.map(|defence| (*attacker, defence)))
        .collect();
    let figures = run_all(&trials, context.settings(), args)?;
    let done: Vec<(Attacker, &[Figures])> =
        attackers.iter().copied().zip(figures.chunks(Kind::ALL.len())).collect();
    Ok(Report::new(text(&done, args), json(&done, args)))
}

/// Runs all trials, on all processors; the figures in the same order.
fn run_all(
    trials: &[(Attacker, Kind)],
    settings: &Settings,
    args: &Simulate,
) -> Result<Vec<Figures>, String> {
    let people = people::tries(args.seed, args.days);
    let next = AtomicUsize::new(0);
    // Drawn on a terminal only.
    let progress = ProgressBar::new(trials.len() as u64);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((attacker, kind)) = trials.get(index) else { return done };
            let (attack, mut defence) = (attacker.attack(args.seed), kind.start(settings));
            // Every defence sees the same guesses.
            let mut random = Random::new(args.seed, &name(*attacker));
            let figures = trial::run(&mut *defence, &attack, &people, args.days, &mut random);
            done.push((index, figures));
            progress.inc(1);
        }
    };
    let mut done = thread::scope(|scope| {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join()).collect::<Result<Vec<_>, _>>()
    })
    .map_err(|_| "a part of the simulation stopped; please report it".to_owned())?
    .concat();
    progress.finish_and_clear();
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, figures)| figures).collect())
}

fn name(attacker: Attacker) -> String {
    attacker.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn text(done: &[(Attacker, &[Figures])], args: &Simulate) -> String {
    let defences = || Kind::ALL.map(Kind::name).into_iter();
    let reached = done.iter().map(|(attacker, figures)| {
        let tries = figures.first().map_or(0, |first| first.tries);
        let shown = move |one: &Figures| match one.reached {
            n if n == tries => "all".to_owned(),
            n => n.to_string(),
        };
        [name(*attacker), tries.to_string()].into_iter().chain(figures.iter().map(shown))
    });
    let reached_header: Vec<String> =
        ["attack".to_owned(), "tries".to_owned()].into_iter().chain(defences()).collect();
    let refused = done.iter().map(|(attacker, figures)| {
        let shown = figures.iter().map(|one| match (one.familiar, one.strangers) {
            (Share { logins: 0, .. }, Share { logins: 0, .. }) => "-".to_owned(),
            (familiar, strangers) => format!("{} / {}", percent(familiar), percent(strangers)),
        });
        [name(*attacker)].into_iter().chain(shown)
    });
    let refused_header: Vec<String> = ["attack".to_owned()].into_iter().chain(defences()).collect();
    format!(
        "Guesses that reach the password on day {} of the attack:\n\n{}\n\
         Right logins of the attacker's neighbours that are refused, in %: from where they are \
         known / by strangers:\n\n{}",
        args.days,
        aligned(&reached_header, reached),
        aligned(&refused_header, refused)
    )
}

fn aligned<R: IntoIterator<Item = String>>(
    header: &[String],
    rows: impl IntoIterator<Item = R>,
) -> String {
    table(&header.iter().map(String::as_str).collect::<Vec<_>>(), rows)
}

fn percent(share: Share) -> String {
    match share.percent() {
        None => "-".to_owned(),
        Some(percent) if percent > 0.0 && percent < 10.0 => format!("{percent:.1}"),
        Some(percent) => format!("{percent:.0}"),
    }
}

fn json(done: &[(Attacker, &[Figures])], args: &Simulate) -> Value {
    let share = |share: Share| json!({"logins": share.logins, "refused": share.refused});
    let attacks: Value = done
        .iter()
        .map(|(attacker, figures)| {
            let defences: Value = Kind::ALL
                .iter()
                .zip(*figures)
                .map(|(kind, one)| {
                    json!({
                        "policy": kind.name(),
                        "guesses_per_day": one.reached,
                        "familiar": share(one.familiar),
                        "strangers": share(one.strangers),
                    })
                })
                .collect();
            json!({
                "attack": name(*attacker),
                "tries_per_day": figures.first().map(|first| first.tries),
                "policies": defences,
            })
        })
        .collect();
    json!({"seed": args.seed, "days": args.days, "attacks": attacks})
}
