//! The store's event catalogue: which one is adopted, and which one may replace it.

use postrider_store::{CatalogueAdoption, NewCatalogue};

use crate::store::fixture::Fixture;

on_each_backend! {
    a_store_without_a_catalogue_adopts_the_first,
    a_newer_catalogue_replaces_an_older_one_and_not_vice_versa,
    one_version_has_one_content,
    a_brand_is_fixed_once_there_are_keys,
    a_name_in_use_cannot_be_removed,
    a_refused_catalogue_changes_nothing,
}

fn catalogue(version: u32, brand: &str, names: &[&str]) -> NewCatalogue {
    NewCatalogue {
        version,
        text: format!("text {version} {brand}"),
        content_hash: [u8::try_from(version).unwrap(); 32],
        brand: brand.to_owned(),
        names: names.iter().map(ToString::to_string).collect(),
    }
}

async fn adopt(at: &Fixture, new: NewCatalogue) -> CatalogueAdoption {
    at.store().adopt_catalogue(new).await.unwrap()
}

async fn a_store_without_a_catalogue_adopts_the_first(mut at: Fixture) {
    assert_eq!(at.store().catalogue().await.unwrap(), None);
    assert_eq!(adopt(&at, catalogue(7, "acme", &["a.b"])).await, CatalogueAdoption::Adopted);
    at.reopen().await;
    assert_eq!(at.store().catalogue().await.unwrap().as_deref(), Some("text 7 acme"));
}

async fn a_newer_catalogue_replaces_an_older_one_and_not_vice_versa(at: Fixture) {
    adopt(&at, catalogue(1, "acme", &["a.b"])).await;
    assert_eq!(adopt(&at, catalogue(3, "acme", &["a.b"])).await, CatalogueAdoption::Adopted);
    let newer = CatalogueAdoption::NewerStored { version: 3, text: "text 3 acme".to_owned() };
    assert_eq!(adopt(&at, catalogue(1, "acme", &["a.b"])).await, newer);
    assert_eq!(adopt(&at, catalogue(2, "globex", &["a.c"])).await, newer);
    assert_eq!(at.store().catalogue().await.unwrap().as_deref(), Some("text 3 acme"));
}

async fn one_version_has_one_content(at: Fixture) {
    adopt(&at, catalogue(1, "acme", &["a.b"])).await;
    let reformatted = NewCatalogue { text: "# text".to_owned(), ..catalogue(1, "acme", &["a.b"]) };
    assert_eq!(adopt(&at, reformatted).await, CatalogueAdoption::Adopted);
    let other = NewCatalogue { content_hash: [9; 32], ..catalogue(1, "acme", &["a.b"]) };
    assert_eq!(adopt(&at, other).await, CatalogueAdoption::OtherContent);
}

async fn a_brand_is_fixed_once_there_are_keys(at: Fixture) {
    adopt(&at, catalogue(1, "acme", &["a.b"])).await;
    assert_eq!(adopt(&at, catalogue(2, "globex", &["a.b"])).await, CatalogueAdoption::Adopted);
    at.api_key(at.new_api_key(1)).await;
    let fixed = CatalogueAdoption::BrandFixed { stored: "globex".to_owned() };
    assert_eq!(adopt(&at, catalogue(3, "acme", &["a.b"])).await, fixed);
    assert_eq!(adopt(&at, catalogue(3, "globex", &["a.b"])).await, CatalogueAdoption::Adopted);
}

async fn a_name_in_use_cannot_be_removed(at: Fixture) {
    let endpoint = at.endpoint().await;
    let subscribed = endpoint.events[0].as_str();
    at.accept(vec![at.event_of("a.published", None)]).await;
    // `a.publish` is only a prefix of a name in use, so it is not in use itself.
    adopt(&at, catalogue(1, "acme", &[subscribed, "a.published", "a.free", "a.publish"])).await;
    let in_use = CatalogueAdoption::NamesInUse(vec![subscribed.to_owned(), "a.published".to_owned()]);
    assert_eq!(adopt(&at, catalogue(2, "acme", &["a.new"])).await, in_use);
    let kept = catalogue(2, "acme", &[subscribed, "a.published"]);
    assert_eq!(adopt(&at, kept).await, CatalogueAdoption::Adopted);
}

async fn a_refused_catalogue_changes_nothing(mut at: Fixture) {
    at.accept(vec![at.event_of("a.b", None)]).await;
    adopt(&at, catalogue(1, "acme", &["a.b"])).await;
    adopt(&at, catalogue(2, "acme", &["a.c"])).await;
    at.reopen().await;
    assert_eq!(at.store().catalogue().await.unwrap().as_deref(), Some("text 1 acme"));
}
