// A page of real use of the Go client that openapi-generator generates. See .ci/clients.
package main

import (
	"context"
	"errors"
	"log"
	"os"
	"strings"

	"clients/postrider"
)

func main() {
	log.SetFlags(log.Lshortfile)
	later := os.Getenv("LATER_VALUE")
	expect := func(value, today string) {
		if later != "" {
			today = later
		}
		if value != today {
			log.Panicf("%q in place of %q", value, today)
		}
	}
	settings := postrider.NewConfiguration()
	settings.Servers = postrider.ServerConfigurations{{URL: os.Getenv("SERVER_URL") + "/v1"}}
	client := postrider.NewAPIClient(settings)
	with := context.WithValue(context.Background(), postrider.ContextAccessToken, os.Getenv("API_KEY"))

	names := []postrider.EventName{postrider.POST_CREATED}
	wanted := postrider.NewCreateWebhookEndpoint("Orders", "https://127.0.0.1:9/", names)
	created, _, err := client.WebhookEndpointsAPI.CreateWebhookEndpoint(with).CreateWebhookEndpoint(*wanted).Execute()
	check(err)
	endpoint := created.Data
	if !strings.HasPrefix(endpoint.Secret, "whsec_") || endpoint.DisabledReason.Get() != nil {
		log.Panicf("%+v", endpoint)
	}
	expect(endpoint.Events[0], "post.created")

	event := postrider.NewPublishEvent(postrider.POST_CREATED, map[string]interface{}{"id": "post_1", "tags": []string{"a"}})
	event.SetProjectId("proj_1")
	published, _, err := client.EventsAPI.PublishEvent(with).PublishEvent(*event).Execute()
	check(err)
	expect(published.Data.Type, "post.created")

	list := client.DeliveriesAPI.ListWebhookDeliveries(with).EventId([]string{published.Data.Id}).Limit(10)
	deliveries, _, err := list.EndpointId([]string{endpoint.Id}).Execute()
	check(err)
	delivery := deliveries.Data[0]
	expect(delivery.EventType, "post.created")
	one, _, err := client.DeliveriesAPI.GetWebhookDelivery(with, delivery.Id).Execute()
	check(err)
	if one.Data.Explanation.State == "" || *one.Data.ProjectId.Get() != "proj_1" {
		log.Panicf("%+v", one)
	}

	entries, _, err := client.AuditLogAPI.ListAuditLog(with).ResourceId(endpoint.Id).Execute()
	check(err)
	expect(entries.Data[0].Action, "endpoint.created")
	expect(entries.Data[0].Actor.Type, "api_key")

	_, answer, err := client.WebhookEndpointsAPI.GetWebhookEndpoint(with, "whe_zzzzzzzzzzzzzzzz").Execute()
	var refusal *postrider.GenericOpenAPIError
	if !errors.As(err, &refusal) || answer.StatusCode != 404 {
		log.Panicf("%v", err)
	}
	expect(refusal.Model().(postrider.ErrorAnswer).Error.Code, "not_found")
	if _, known := delivery.AdditionalProperties["fieldOfTomorrow"]; later != "" && !known {
		log.Panicf("%+v", delivery)
	}
}

func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}
