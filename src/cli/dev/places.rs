//! Where everything of `posthaste dev` goes: its two addresses, and a database for each entry.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use super::DevCommandError;
use crate::config::asks_for_tls;
use crate::dev::{free_port, holder_of};

/// The API's and the console's address, both free a moment ago.
pub(super) fn http_ports(port: u16) -> Result<(SocketAddr, SocketAddr), DevCommandError> {
    let on_loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if port == 0 {
        return Ok((on_loopback(free_port()?), on_loopback(free_port()?)));
    }
    for port in [port, port + 1] {
        if TcpListener::bind(on_loopback(port)).is_err() {
            return Err(DevCommandError::PortTaken { port, holder: holder_of(port) });
        }
    }
    Ok((on_loopback(port), on_loopback(port + 1)))
}

/// A database name for each entry: the entry's own, made plain; PostgreSQL's own databases are left alone.
pub(super) fn databases_for(entries: &[String]) -> Result<Vec<String>, DevCommandError> {
    let mut databases: Vec<String> = Vec::new();
    for entry in entries {
        let plain: String =
            entry.chars().take(48).map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        let database = match plain.as_str() {
            "postgres" | "template0" | "template1" | "" => format!("dev_{plain}"),
            _ => plain,
        };
        if databases.contains(&database) {
            return Err(DevCommandError::SameDatabase(database));
        }
        databases.push(database);
    }
    Ok(databases)
}

/// The given server for each entry: the url as it is for a single one, else with the entry's name as the database.
pub(super) fn given_postgres(url: &str, entries: &[String]) -> Result<Vec<(String, String)>, DevCommandError> {
    let parsed = url::Url::parse(url).map_err(|source| DevCommandError::Url { option: "postgres", source })?;
    if asks_for_tls(&parsed) {
        return Err(DevCommandError::Tls);
    }
    if let [only] = entries {
        return Ok(vec![(only.clone(), url.to_owned())]);
    }
    let of_entry = |entry: &String| {
        let mut url = parsed.clone();
        url.set_path(entry);
        (entry.clone(), url.to_string())
    };
    Ok(entries.iter().map(of_entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_postgres_entry_gets_a_database_of_its_own() {
        let entries = ["main", "Bill ing.2", "postgres"].map(str::to_owned);
        assert_eq!(databases_for(&entries).unwrap(), ["main", "Bill_ing_2", "dev_postgres"]);
        let refused = databases_for(&["a.b".to_owned(), "a b".to_owned()]).unwrap_err().to_string();
        assert_eq!(refused, "two postgres entries would use the database \"a_b\": rename one");
    }

    #[test]
    fn a_given_postgres_is_taken_as_it_is_for_one_entry_and_by_name_for_several() {
        let url = "postgres://u:p%40ss@db:5432/app?sslmode=disable";
        assert_eq!(given_postgres(url, &["main".into()]).unwrap(), [("main".to_owned(), url.to_owned())]);
        let several = given_postgres(url, &["main".into(), "other".into()]).unwrap();
        assert_eq!(several[1].1, "postgres://u:p%40ss@db:5432/other?sslmode=disable");
    }

    #[test]
    fn a_taken_http_port_is_refused_with_its_holder() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port().unwrap())).unwrap();
        let port = listener.local_addr().unwrap().port();
        let refused = http_ports(port).unwrap_err().to_string();
        let start = format!("port {port} is taken by pid {} (", std::process::id());
        assert!(refused.starts_with(&start) && refused.ends_with("take free ones with --port 0"), "{refused}");
        let (api, console) = http_ports(0).unwrap();
        assert!(api.port() != 0 && console.port() != 0 && api != console);
    }
}
