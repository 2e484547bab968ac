//! A country database in a directory of its own, and the command that works there.

use std::fs;
use std::path::PathBuf;

use pam_prefixquota::country::{Country, country_of};

use super::mmdb::Mmdb;
use super::store::source;

/// A directory with settings and perhaps a country database.
pub struct Lab {
    pub dir: tempfile::TempDir,
}

impl Lab {
    pub fn new() -> Lab {
        let lab = Lab { dir: super::private_dir() };
        let settings = format!("country_database = {}\n", lab.database().display());
        fs::write(lab.path("settings"), settings).unwrap();
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn database(&self) -> PathBuf {
        self.path("country.db")
    }

    /// Exit status, standard output and standard error.
    pub fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = super::command();
        let run = command.arg("--config").arg(self.path("settings")).args(arguments).output();
        let run = run.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (run.status.code().unwrap(), text(run.stdout), text(run.stderr))
    }

    pub fn import(&self, bytes: &[u8]) -> (i32, String, String) {
        fs::write(self.path("in.mmdb"), bytes).unwrap();
        self.run(&["country", "import", self.path("in.mmdb").to_str().unwrap()])
    }

    pub fn imported(mmdb: &Mmdb) -> Lab {
        let lab = Lab::new();
        let (status, _, error) = lab.import(&mmdb.write());
        assert_eq!((status, error.as_str()), (0, ""));
        lab
    }

    /// The country of an address, as the module finds it.
    pub fn of(&self, address: &str) -> String {
        let found = country_of(&self.database(), &source(address)).unwrap();
        found.map_or("none".to_owned(), |country| country.to_string())
    }

    pub fn sql(&self, question: &str) -> i64 {
        let conn = rusqlite::Connection::open(self.database()).unwrap();
        conn.query_row(question, [], |row| row.get(0)).unwrap()
    }
}

pub fn known(code: &str) -> Country {
    Country::parse(code).unwrap()
}
