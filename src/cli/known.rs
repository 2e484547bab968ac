//! `known`: from where users have logged in.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use ipnet::IpNet;
use pam_prefixquota::guard::{Clock, SystemClock};
use pam_prefixquota::login::Tier;
use pam_prefixquota::source::Family;
use pam_prefixquota::store::UserPlace;
use serde_json::{Value, json};

use super::show::local_time;
use super::{Context, Report, json_count, shown_count, shown_name, table};

/// Whose places, or which.
enum Which {
    All,
    Of(Vec<u8>),
    Inside(IpNet),
}

impl Which {
    /// What parses as an address or a prefix is one; an address stands for the places around it.
    fn new(context: &Context, text: Option<&OsStr>) -> Which {
        let Some(text) = text else { return Which::All };
        match text.to_str().map(|text| context.prefix(text)) {
            Some(Ok(prefix)) => Which::Inside(prefix),
            _ => Which::Of(text.as_bytes().to_vec()),
        }
    }

    fn has(&self, known: &UserPlace) -> bool {
        match (self, known.place) {
            (Which::All, _) => true,
            (Which::Of(user), _) => known.user == *user,
            (Which::Inside(prefix), Some(place)) => {
                let family = if place.addr().is_ipv4() { Family::V4 } else { Family::V6 };
                let is_address = prefix.prefix_len() == family.bits();
                let around = is_address
                    && place.prefix_len() == Tier::Near.length(family)
                    && place.contains(prefix);
                around || prefix.contains(&place)
            }
            (Which::Inside(_), None) => false,
        }
    }
}

/// `known list [USER|PREFIX]`.
pub fn list(context: &Context, which: Option<&OsStr>) -> Result<Report, String> {
    let which = Which::new(context, which);
    let mut known = match context.existing_store()? {
        Some(store) => store.reader().all_known().map_err(|error| error.to_string())?,
        None => Vec::new(),
    };
    let (settings, now) = (context.settings(), SystemClock.now());
    let recent = |known: &UserPlace| settings.remembers(known.seen, now);
    known.retain(|known| known.place.is_some() && recent(known) && which.has(known));
    let left = |known: &UserPlace| known.count.left(now, settings.known_pace());
    let place = |known: &UserPlace| known.place.map(|place| place.to_string()).unwrap_or_default();
    let rows = known.iter().map(|known| {
        [shown_name(&known.user), place(known), local_time(known.seen), shown_count(left(known))]
    });
    let text = if known.is_empty() {
        "No places are known.".to_owned()
    } else {
        table(&["user", "place", "last login", "failures"], rows)
    };
    let json: Value = known
        .iter()
        .map(|known| {
            json!({
                "user": shown_name(&known.user),
                "place": place(known),
                "last_unix_ms": known.seen,
                "count": json_count(left(known)),
            })
        })
        .collect();
    Ok(Report::new(text, json))
}

/// `known forget USER|PREFIX`.
pub fn forget(context: &Context, which: &OsStr) -> Result<Report, String> {
    let chosen = Which::new(context, Some(which));
    let mut forgotten = 0;
    if let Some(mut store) = context.existing_store()? {
        forgotten = store
            .transact(|write| write.forget_known(|known| chosen.has(known)))
            .map_err(|error| error.to_string())?;
    }
    let which = shown_name(which.as_bytes());
    let text = match forgotten {
        0 => format!("No places are known for {which}."),
        1 => format!("Forgot one place of {which}."),
        n => format!("Forgot {n} places of {which}."),
    };
    Ok(Report::new(text, json!({"forgotten": forgotten})))
}
