//! What a web page in a visitor's browser can make of a server that this browser reaches: nothing, unless it is named.

use reqwest::Method;

use crate::support::{App, LONG, Options, Reply, SOON, Servers, client, run};

const ADAPTERS: &str = r"
adapters:
  - name: fromShop
    receiver:
      checkForDuplicates: true
      listener: { api: { uriPattern: /shop, headerParams: [X-Tenant], allowedOrigins: [ 'https://shop.example' ] } }
      messageLog: { slotId: shop-req }
    pipeline:
      - { name: send, amqpSender: { connection: rabbit, destinationName: myQueue } }
";

const SHOP: &str = "https://shop.example";

async fn started() -> App {
    let mut app = App::lay_out(Servers::shared().await, Options::default()).await;
    app.write("configurations/shop/adapters.yml", ADAPTERS);
    app.migrate();
    app.run();
    app.ready(LONG).await;
    app
}

/// What a browser asks beforehand.
async fn preflight(app: &App, path: &str, origin: &str, method: &str) -> Reply {
    let request = client::request(&app.http, Method::OPTIONS, app.api, path).header("Origin", origin);
    client::send(request.header("Access-Control-Request-Method", method)).await
}

#[test]
fn a_page_of_another_site_can_send_nothing() {
    run(async {
        let app = started().await;
        for path in ["/api/write", "/api/shop"] {
            for foreign in [
                &[("Origin", "http://evil.example")][..],
                &[("Origin", "null")],
                &[("Sec-Fetch-Site", "cross-site")],
                &[("Sec-Fetch-Site", "same-site")],
                &[("Origin", "http://evil.example"), ("Sec-Fetch-Site", "cross-site")],
            ] {
                // A simple request, which no browser asks about beforehand.
                let reply = app.send(path, &[foreign, &[("Content-Type", "text/plain")]].concat(), b"forged").await;
                reply.problem(403);
                assert_eq!(reply.header("x-outcome"), "none", "{reply:?}");
                assert_eq!(reply.header("access-control-allow-origin"), "", "{reply:?}");
            }
            let asked = preflight(&app, path, "http://evil.example", "POST").await;
            assert_eq!((asked.status, asked.header("access-control-allow-origin")), (405, ""), "{asked:?}");
        }
        let asked = preflight(&app, "/api/write", SHOP, "POST").await;
        assert_eq!(asked.status, 405, "allowed at another listener: {asked:?}");
        app.settled(SOON).await;
        assert_eq!(app.traces().await, [0, 0, 0]);
        let own = format!("http://{}", app.api);
        let headers = [("Message-Id", "own"), ("Origin", own.as_str()), ("Sec-Fetch-Site", "same-origin")];
        assert_eq!(app.send("/api/write", &headers, b"own page").await.status, 202);
    });
}

#[test]
fn a_page_that_the_listener_names_may_send_and_read_the_answer_and_the_state() {
    run(async {
        let app = started().await;
        let asked = preflight(&app, "/api/shop", SHOP, "POST").await;
        assert_eq!((asked.status, asked.header("access-control-allow-origin")), (204, SHOP), "{asked:?}");
        assert_eq!(asked.header("access-control-allow-methods"), "POST");
        for name in ["content-type", "message-id", "correlation-id", "x-tenant"] {
            assert!(asked.header("access-control-allow-headers").split(", ").any(|one| one == name), "{asked:?}");
        }
        assert_eq!(preflight(&app, "/api/shop", SHOP, "DELETE").await.status, 405);

        let headers = [("Message-Id", "from-a-page"), ("Origin", SHOP), ("Sec-Fetch-Site", "cross-site")];
        for status in [202, 304] {
            let reply = app.send("/api/shop", &headers, b"from a page").await;
            assert_eq!((reply.status, reply.header("access-control-allow-origin")), (status, SHOP), "{reply:?}");
            assert!(reply.header("access-control-expose-headers").contains("location"), "{reply:?}");
            assert_eq!(reply.header("vary"), "origin", "{reply:?}");
        }
        let bad = app.send("/api/shop", &[("Message-Id", "two words"), ("Origin", SHOP)], b"x").await;
        assert_eq!((bad.status, bad.header("access-control-allow-origin")), (400, SHOP), "{bad:?}");
        for (origin, allowed) in [(SHOP, SHOP), ("http://evil.example", "")] {
            let state = client::request(&app.http, Method::GET, app.api, "/api/messages/shop-req/from-a-page");
            let reply = client::send(state.header("Origin", origin)).await;
            assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, allowed), "{reply:?}");
        }
    });
}

#[test]
fn a_console_without_log_ins_beyond_loopback_warns_and_knows_no_name_that_is_not_listed() {
    run(async {
        let mut app = App::install(Servers::shared().await, Options::default()).await;
        let port = app.console.port();
        let open = format!("listen: 0.0.0.0:{port}\n    unauthenticated: true\n    hosts: [ posthaste.internal ]");
        app.edit_resources(&format!("listen: {}", app.console), &open);
        app.run();
        app.ready(LONG).await;
        let warned = app.log_has("the console has no log-ins").await;
        assert!(warned.len() == 1 && warned[0].contains("WARN"), "{warned:?}");

        let get = async |path: &str, host: &str| {
            let request = client::request(&app.http, Method::GET, app.console, path).header("Host", host);
            client::send(request).await.status
        };
        for host in ["posthaste.internal", "posthaste.internal:80", &format!("localhost:{port}"), "10.0.0.5"] {
            assert_eq!(get("/api/v1/stores", host).await, 200, "{host}");
        }
        for host in ["evil.example", &format!("evil.example:{port}")] {
            assert_eq!(get("/api/v1/stores", host).await, 403, "{host}");
            for probe in ["/livez", "/readyz", "/metrics"] {
                assert_eq!(get(probe, host).await, 200, "{probe}");
            }
        }
        app.stop().await;
        app.edit_resources(&open, &format!("listen: {}\n    unauthenticated: true", app.console));
        app.run();
        app.ready(LONG).await;
        assert_eq!(app.log_lines("the console has no log-ins").len(), 1, "on loopback there is nothing to warn of");
    });
}
