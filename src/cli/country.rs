//! Subcommands about countries.

use std::path::Path;
use std::time::Instant;

use pam_prefixquota::country::import;
use pam_prefixquota::country::{Countries, Country};
use serde_json::json;

use super::{Context, Report, readable};

/// `country import FILE`.
pub fn import(context: &Context, file: &Path) -> Result<Report, String> {
    let database = &context.settings().country_database;
    let started = Instant::now();
    let about =
        import::import(file, database, context.lock_wait()).map_err(|error| match error {
            import::ImportError::Target(error) => readable(&error),
            import::ImportError::Source(..) => error.to_string(),
        })?;
    let seconds = started.elapsed().as_secs_f64();
    let text = format!(
        "Imported {} ranges of {} countries from {} (built {}) into {} in {seconds:.1} s.",
        about.ranges,
        about.countries,
        about.database_type,
        about.built,
        database.display()
    );
    let json = json!({
        "database": database,
        "database_type": about.database_type,
        "built": about.built,
        "ranges": about.ranges,
        "countries": about.countries,
        "seconds": (seconds * 1000.0).round() / 1000.0,
    });
    Ok(Report::new(text, json))
}

/// `country show ADDRESS`.
pub fn show(context: &Context, address: &str) -> Result<Report, String> {
    let source = context.source(address)?;
    let countries =
        Countries::open(&context.settings().country_database).map_err(|e| readable(&e))?;
    let about = countries.about().map_err(|e| readable(&e))?;
    let country = countries.of(&source).map_err(|e| readable(&e))?;
    let data = format!("{}, built {}", about.database_type, about.built);
    let text = match country {
        None => format!("{source} is in no country: it is an address of this host or network."),
        Some(Country::Unknown) => format!("{source} is in no country that is known ({data})."),
        Some(country) => format!("{source} is in {country} ({data})."),
    };
    let json = json!({
        "source": source.to_string(),
        "country": country.map(|country| country.to_string()),
        "database_type": about.database_type,
        "built": about.built,
    });
    Ok(Report::new(text, json))
}
