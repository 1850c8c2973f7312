//! Every key that the files may hold, section by section. docs/configuration.md explains each; a test compares the two.

/// One kind of mapping.
#[derive(Debug)]
pub struct Shape {
    /// Where it stands, with `[]` for the entries of a list.
    pub path: &'static str,
    /// For messages: "unknown key … in {label}".
    pub label: &'static str,
    pub keys: &'static [&'static str],
}

macro_rules! shapes {
    ($($name:ident = $path:literal, $label:literal: [$($key:literal),+ $(,)?];)+) => {
        $(pub(super) const $name: Shape = Shape { path: $path, label: $label, keys: &[$($key),+] };)+

        /// All sections, in the order of the files.
        pub const SHAPES: &[&Shape] = &[$(&$name),+];
    };
}

shapes! {
    RESOURCES = "resources.yml", "resources.yml": ["instance", "postgres", "amqp", "http"];
    INSTANCE = "instance", "`instance`": ["name", "home", "lease", "stopTimeout"];
    POSTGRES = "postgres[]", "a postgres entry": ["name", "url", "username", "password", "role", "poolMaxSize"];
    AMQP = "amqp[]", "an amqp entry":
        ["name", "url", "username", "password", "managementUrl", "createDestination", "queues"];
    QUEUE = "amqp[].queues[]", "a queue": ["name", "retryDelays"];
    HTTP = "http", "`http`": ["api", "console"];
    HTTP_API = "http.api", "`http.api`":
        ["listen", "headerTimeout", "bodyTimeout", "progressTimeout", "maxConnections", "maxConnectionsPerAddress",
         "maxBodyInFlight"];
    HTTP_CONSOLE = "http.console", "`http.console`": ["listen", "hosts", "unauthenticated"];
    ADAPTERS = "adapters.yml", "adapters.yml": ["adapters"];
    ADAPTER = "adapters[]", "an adapter": ["name", "description", "transactionAttribute", "receiver", "pipeline"];
    RECEIVER = "adapters[].receiver", "a receiver": [
        "transactionAttribute", "transactionTimeout", "checkForDuplicates", "checkForDuplicatesMethod", "listener",
        "messageLog", "errorStorage", "maxRetries", "retryScheme", "retryPermanentErrors", "numThreads",
        "groupSize",
    ];
    LISTENER = "adapters[].receiver.listener", "a listener": ["api", "amqp"];
    LISTENER_API = "adapters[].receiver.listener.api", "an api listener": [
        "uriPattern", "method", "messageIdHeaders", "correlationIdHeader", "requireMessageId", "headerParams",
        "allowedOrigins", "maxBody", "duplicateStatus", "conflictStatus", "accept", "maxOpen",
    ];
    LISTENER_AMQP = "adapters[].receiver.listener.amqp", "an amqp listener": ["connection", "destinationName"];
    MESSAGE_LOG = "adapters[].receiver.messageLog", "`messageLog`": ["slotId", "retention"];
    ERROR_STORAGE = "adapters[].receiver.errorStorage", "`errorStorage`": ["slotId"];
    STEP = "adapters[].pipeline[]", "a step": ["name", "input", "amqpSender", "query", "call"];
    AMQP_SENDER = "adapters[].pipeline[].amqpSender", "`amqpSender`": ["connection", "destinationName"];
    QUERY = "adapters[].pipeline[].query", "`query`": ["database", "sql", "params"];
    CALL = "adapters[].pipeline[].call", "`call`": ["adapter"];
}

/// The kinds of a listener and of a step: exactly one stands there.
pub(super) const LISTENER_KINDS: &[&str] = &["api", "amqp"];
pub(super) const STEP_KINDS: &[&str] = &["amqpSender", "query", "call"];

/// Kinds that docs/features.md plans: nobody has misspelt them.
pub(super) const PLANNED: &[&str] = &[
    "choose",
    "forEach",
    "httpSender",
    "insert",
    "messageStore",
    "messageStoreSender",
    "schedule",
    "transform",
    "validate",
];
