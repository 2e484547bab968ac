//! `check --line`: what `replay` makes of one line.

use pam_prefixquota::guard::{Clock, SystemClock};
use pam_prefixquota::source::locate;
use serde_json::json;

use super::line::{Entry, Line};
use super::parse::{Found, parse};
use super::patterns::{Means, Program, Sign, Trace};
use super::time::{Stamp, Years, Zone};
use crate::cli::show::local_time;
use crate::cli::{Context, Report, shown_name, table};

/// `check --line LINE`.
pub fn explain(context: &Context, line: &[u8]) -> Report {
    let entry = Entry::parse(line);
    let line = entry.as_ref().map_or_else(|| Line::of(line), Entry::line);
    let Some(Found { pattern, fields }) = parse(&line) else {
        let text = "Not recognised: replay passes over this line.";
        return Report::new(text, json!({"recognised": false})).denied_if(true);
    };
    let service = match pattern.by {
        Program::Sshd => "sshd".to_owned(),
        Program::Dovecot => "dovecot".to_owned(),
        Program::Postfix => "postfix".to_owned(),
        Program::Vsftpd => "vsftpd".to_owned(),
        Program::Proftpd => "proftpd".to_owned(),
        Program::PamUnix | Program::Any => shown_name(line.service),
    };
    let (outcome, is_attempt) = match pattern.sign {
        Sign::Failed(_) => ("failed", true),
        Sign::Accepted(Means::Key) => ("accepted by key", true),
        Sign::Accepted(_) => ("accepted", true),
        Sign::Closed | Sign::Nothing => ("no attempt", false),
    };
    let attempts = match pattern.sign {
        Sign::Failed(_) => fields.number.unwrap_or(1).saturating_mul(line.times),
        _ => u32::from(is_attempt),
    };
    let meaning = match pattern.sign {
        Sign::Failed(Trace::Pam) => {
            format!("{}; counts where the service itself does not tell", pattern.meaning)
        }
        _ => pattern.meaning.to_owned(),
    };
    let nat64 = &context.settings().nat64;
    let source = fields.host.and_then(|host| locate(Some(host), None, line.service, nat64));
    let source = source.map(|source| source.to_string());
    let user = fields.user.filter(|user| !user.is_empty()).map(shown_name);
    let time = line.stamp.map(time);
    let not_told = || "not told".to_owned();
    let rows = [
        ["pattern", pattern.name],
        ["meaning", &meaning],
        ["service", &service],
        ["outcome", outcome],
        ["attempts", &attempts.to_string()],
        ["source", &source.clone().unwrap_or_else(not_told)],
        ["user", &user.clone().unwrap_or_else(not_told)],
        ["time", &time.map_or_else(not_told, local_time)],
        ["example", pattern.example],
    ];
    let json = json!({
        "recognised": true,
        "pattern": pattern.name,
        "meaning": meaning,
        "service": service,
        "outcome": outcome,
        "attempts": attempts,
        "source": source,
        "user": user,
        "user_known": user.is_some(),
        "unix_ms": time,
        "example": pattern.example,
    });
    Report::new(table(&[], rows.map(|row| row.map(str::to_owned))), json)
}

/// The time of a line alone: without a year, the last time that it was so.
fn time(stamp: Stamp) -> i64 {
    let mut zone = Zone::system();
    match stamp {
        Stamp::Utc(at) => at,
        Stamp::Local(local) => zone.utc(local),
        Stamp::Yearless(stamp) => {
            let mut years = Years::default();
            let year = years.next(stamp);
            let first = years.first(zone.local(SystemClock.now()));
            zone.utc(Years::local(stamp, first + year))
        }
    }
}
