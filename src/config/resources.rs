//! `resources.yml`: what exists in this environment.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use axum::http::uri::Authority;

use super::Addresses;
use super::diagnostic::Place;
use super::keys;
use super::section::{At, Context, Section, Text, checked};
use super::tree;
use super::urls::{amqp_url, check_url, management_url, postgres_url};
use super::values::{self, Wrong};
use crate::console::ConsoleSettings;
use crate::inbound::ApiSettings;

/// resources.yml as it was read: every value checked on its own, none against another.
pub(super) struct Resources {
    pub instance: Instance,
    pub postgres: Vec<Postgres>,
    pub amqp: Vec<Amqp>,
    pub api: ApiSettings,
    pub console: ConsoleSettings,
    pub console_at: Place,
}

pub(super) struct Instance {
    pub name: Option<Text>,
    pub home: Text,
    pub lease: Duration,
    pub stop_timeout: Duration,
}

pub(super) struct Postgres {
    pub name: Text,
    pub url: Text,
    pub username: Option<Text>,
    pub password: Option<Text>,
    pub role: Option<Text>,
    pub pool_max_size: At<usize>,
}

pub(super) struct Amqp {
    pub name: Text,
    pub url: Text,
    pub username: Option<Text>,
    pub password: Option<Text>,
    pub management_url: Option<Text>,
    pub create_destination: bool,
    pub queues: Vec<Queue>,
}

pub(super) struct Queue {
    pub name: Text,
    /// Empty when the administrator leaves it to the adapter.
    pub retry_delays: Vec<Duration>,
}

/// Reads the file; None when it is no YAML or no mapping.
pub(super) fn read(path: &Path, cx: &mut Context<'_>) -> Option<Resources> {
    let root = tree::read(path, &mut cx.report)?;
    cx.enter(path);
    let mut section = Section::open(root, &keys::RESOURCES, cx)?;
    let at = section.at;
    let instance = match section.section("instance", &keys::INSTANCE, cx) {
        Some(instance) => instance_section(instance, cx),
        None => {
            section.missing("instance", cx);
            Instance { name: None, home: Text::absent(at), lease: LEASE, stop_timeout: STOP_TIMEOUT }
        }
    };
    let postgres = entries(&mut section, "postgres", &keys::POSTGRES, postgres_entry, cx);
    match &postgres {
        None => section.missing("postgres", cx),
        Some(list) if list.value.is_empty() => {
            cx.report.error(list.at, "`postgres` lists no database", "Posthaste needs one for its own tables");
        }
        Some(_) => {}
    }
    let amqp = entries(&mut section, "amqp", &keys::AMQP, amqp_entry, cx);
    let http = section.section("http", &keys::HTTP, cx);
    section.finish(cx);
    let (api, console) = http_section(http, at, cx);
    Some(Resources {
        instance,
        postgres: postgres.map(|list| list.value).unwrap_or_default(),
        amqp: amqp.map(|list| list.value).unwrap_or_default(),
        api,
        console_at: console.at,
        console: console.value,
    })
}

/// Reads `http` alone; the other keys are left to `read`. None when the file is no mapping.
pub(super) fn read_addresses(path: &Path, cx: &mut Context<'_>) -> Option<Addresses> {
    let root = tree::read(path, &mut cx.report)?;
    cx.enter(path);
    let mut root = Section::open(root, &keys::RESOURCES, cx)?;
    let http = root.section("http", &keys::HTTP, cx);
    let (api, console) = http_section(http, root.at, cx);
    Some(Addresses { api: api.listen, console: console.value.listen })
}

const LEASE: Duration = Duration::from_secs(5);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const SECOND: Duration = Duration::from_secs(1);

fn instance_section(mut section: Section, cx: &mut Context<'_>) -> Instance {
    let between = |least, most| move |text: &str| values::duration_between(text, least, most);
    let name = section.text("name", cx).filter(|name| checked("name", name, values::name, cx).is_some());
    let home = section.required("home", cx);
    // The heartbeat is 1 s: a shorter lease would declare the living dead.
    let lease = section.parsed("lease", between(SECOND * 2, SECOND * 300), cx);
    let stop_timeout = section.parsed("stopTimeout", between(SECOND, SECOND * 3600), cx);
    section.finish(cx);
    Instance {
        name,
        home,
        lease: lease.map_or(LEASE, |lease| lease.value),
        stop_timeout: stop_timeout.map_or(STOP_TIMEOUT, |timeout| timeout.value),
    }
}

/// Reads the entries of a list of mappings; None when the key is absent or no list.
pub(super) fn entries<T>(
    section: &mut Section,
    key: &str,
    shape: &'static keys::Shape,
    read: fn(Section, &mut Context<'_>) -> T,
    cx: &mut Context<'_>,
) -> Option<At<Vec<T>>> {
    let list = section.list(key, cx)?;
    let mut read_entries = Vec::new();
    for item in list.value {
        if let Some(entry) = Section::open(item, shape, cx) {
            read_entries.push(read(entry, cx));
        }
    }
    Some(At { value: read_entries, at: list.at })
}

fn postgres_entry(mut section: Section, cx: &mut Context<'_>) -> Postgres {
    let name = section.required_form("name", values::name, cx);
    let url = section.required("url", cx);
    let username = section.text_or_nothing("username", cx);
    let password = section.text_or_nothing("password", cx);
    let role = section.text("role", cx).filter(|role| checked("role", role, values::role, cx).is_some());
    let pool = section.parsed("poolMaxSize", |text| values::number(text, 1, 1000), cx);
    let at = if name.is_absent() { section.at } else { name.at };
    section.finish(cx);
    check_url("url", &url, postgres_url, cx);
    Postgres {
        name,
        url,
        username,
        password,
        role,
        pool_max_size: pool.map_or(At { value: 16, at }, |pool| At {
            value: usize::try_from(pool.value).unwrap_or(1000),
            at: pool.at,
        }),
    }
}

fn amqp_entry(mut section: Section, cx: &mut Context<'_>) -> Amqp {
    let name = section.required_form("name", values::name, cx);
    let url = section.required("url", cx);
    let username = section.text_or_nothing("username", cx);
    let password = section.text_or_nothing("password", cx);
    let management = section.text_or_nothing("managementUrl", cx);
    let create_destination = section.parsed("createDestination", values::flag, cx).is_some_and(|flag| flag.value);
    let queues = entries(&mut section, "queues", &keys::QUEUE, queue_entry, cx);
    section.finish(cx);
    check_url("url", &url, amqp_url, cx);
    if let Some(url) = &management {
        check_url("managementUrl", url, management_url, cx);
    }
    Amqp {
        name,
        url,
        username,
        password,
        management_url: management,
        create_destination,
        queues: queues.map(|q| q.value).unwrap_or_default(),
    }
}

fn queue_entry(mut section: Section, cx: &mut Context<'_>) -> Queue {
    let name = section.required_form("name", values::queue_name, cx);
    let delays = section.texts("retryDelays", cx);
    let retry_delays = delays.iter().filter_map(|text| checked("retryDelays", text, values::duration, cx)).collect();
    section.finish(cx);
    Queue { name, retry_delays }
}

fn http_section(http: Option<Section>, at: Place, cx: &mut Context<'_>) -> (ApiSettings, At<ConsoleSettings>) {
    let (mut api, mut console) = (None, None);
    if let Some(mut http) = http {
        api = http.section("api", &keys::HTTP_API, cx);
        console = http.section("console", &keys::HTTP_CONSOLE, cx);
        http.finish(cx);
    }
    (api_section(api, cx), console_section(console, at, cx))
}

const LARGEST_BODIES: u64 = 64 << 30;

fn api_section(section: Option<Section>, cx: &mut Context<'_>) -> ApiSettings {
    let mut settings = ApiSettings {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
        header_timeout: Duration::from_secs(10),
        body_timeout: Duration::from_secs(30),
        progress_timeout: Duration::from_secs(10),
        max_connections: 1024,
        max_connections_per_address: None,
        max_body_bytes_in_flight: 64 << 20,
    };
    let Some(mut section) = section else { return settings };
    let timeout = |text: &str| values::duration_between(text, Duration::from_millis(100), SECOND * 3600);
    if let Some(listen) = section.parsed("listen", listen_address, cx) {
        settings.listen = listen.value;
    }
    if let Some(timeout) = section.parsed("headerTimeout", timeout, cx) {
        settings.header_timeout = timeout.value;
    }
    if let Some(timeout) = section.parsed("bodyTimeout", timeout, cx) {
        settings.body_timeout = timeout.value;
    }
    if let Some(timeout) = section.parsed("progressTimeout", timeout, cx) {
        settings.progress_timeout = timeout.value;
    }
    let connections = |text: &str| values::number(text, 1, 1_000_000);
    if let Some(most) = section.parsed("maxConnections", connections, cx) {
        settings.max_connections = usize::try_from(most.value).unwrap_or(usize::MAX);
    }
    if let Some(most) = section.parsed("maxConnectionsPerAddress", connections, cx) {
        settings.max_connections_per_address = usize::try_from(most.value).ok();
    }
    if let Some(most) = section.parsed("maxBodyInFlight", |text| values::size(text, LARGEST_BODIES), cx) {
        settings.max_body_bytes_in_flight = most.value;
    }
    section.finish(cx);
    settings
}

fn console_section(section: Option<Section>, default_at: Place, cx: &mut Context<'_>) -> At<ConsoleSettings> {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 8081));
    let mut settings = ConsoleSettings { listen, hosts: Vec::new(), unauthenticated: false };
    let Some(mut section) = section else { return At { value: settings, at: default_at } };
    let mut at = section.at;
    if let Some(listen) = section.parsed("listen", listen_address, cx) {
        (settings.listen, at) = (listen.value, listen.at);
    }
    let hosts = section.texts("hosts", cx);
    settings.hosts = hosts.iter().filter_map(|text| checked("hosts", text, host, cx)).collect();
    settings.unauthenticated = section.parsed("unauthenticated", values::flag, cx).is_some_and(|flag| flag.value);
    section.finish(cx);
    At { value: settings, at }
}

/// As it stands in a request's `Host`.
fn host(text: &str) -> Result<Authority, Wrong> {
    let host = text.parse::<Authority>().ok().filter(|host| !text.contains(['@', '*']) && !host.host().is_empty());
    host.ok_or_else(|| {
        Wrong::new("a host, or a host and a port", "for example posthaste.example:8081, without http://")
    })
}

fn listen_address(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| {
        Wrong::new("an IP address and a port", "for example 127.0.0.1:8080, 0.0.0.0:8080 for all, or [::1]:8080")
    })
}
