"""What the demo tells the operator of the cluster it makes."""

from demo.place import router_settings
from lora_operator.routing.controller import Controllers, ask_over_http
from lora_operator.settings import parse_settings


def test_the_operator_asks_the_devclusters_router_whether_a_route_is_served() -> None:
    settings = parse_settings(
        router_settings("http://10.77.0.1:8000"), operator_image="", job_image="", image_pull_policy="Never"
    )
    controllers = Controllers.of(settings.routers, ask=ask_over_http)
    assert controllers.gateway == {"traefik": "http://10.77.0.1:8000"}
