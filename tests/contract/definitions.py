"""Task definitions that tests register."""

from typing import Any

__all__ = ["FULL_CONTAINER", "definition", "register"]


def definition(**members: Any) -> dict[str, Any]:
    """The least that can be registered, with members put over it."""
    container = {"name": "web", "image": "busybox:latest", "memory": 64}
    return {"family": "web", "containerDefinitions": [container], **members}


def register(ecs: Any, **members: Any) -> str:
    """Register it and return the ARN."""
    arn: str = ecs.register_task_definition(**definition(**members))["taskDefinition"]["taskDefinitionArn"]
    return arn


#: A container definition that says something about nearly everything the model has.
FULL_CONTAINER: dict[str, Any] = {
    "name": "full",
    "image": "registry.example/team/app@sha256:" + "a" * 64,
    "repositoryCredentials": {"credentialsParameter": "secret"},
    "cpu": 128,
    "memory": 256,
    "memoryReservation": 128,
    "links": ["side"],
    "portMappings": [{"containerPort": 80, "hostPort": 8080, "protocol": "udp", "name": "dns"}],
    "essential": True,
    "restartPolicy": {"enabled": True, "ignoredExitCodes": [0, 3], "restartAttemptPeriod": 60},
    "entryPoint": ["sh", "-c"],
    "command": ["", "sleep 1"],
    "environment": [{"name": "EMPTY", "value": ""}, {"name": "ä", "value": "✓"}],
    "environmentFiles": [{"value": "arn:aws:s3:::bucket/file.env", "type": "s3"}],
    "mountPoints": [{"sourceVolume": "data", "containerPath": "/data", "readOnly": True}],
    "volumesFrom": [{"sourceContainer": "side", "readOnly": False}],
    "linuxParameters": {
        "capabilities": {"add": ["NET_ADMIN"], "drop": []},
        "devices": [{"hostPath": "/dev/null", "permissions": ["read"]}],
        "initProcessEnabled": True,
        "sharedMemorySize": 64,
        "tmpfs": [{"containerPath": "/tmp", "size": 16, "mountOptions": ["noexec"]}],
        "maxSwap": 0,
        "swappiness": 60,
    },
    "secrets": [{"name": "TOKEN", "valueFrom": "token"}],
    "dependsOn": [{"containerName": "side", "condition": "START"}],
    "startTimeout": 120,
    "stopTimeout": 10,
    "versionConsistency": "disabled",
    "hostname": "h",
    "user": "1000:1000",
    "workingDirectory": "/srv",
    "disableNetworking": False,
    "privileged": False,
    "readonlyRootFilesystem": True,
    "dnsServers": ["10.0.0.2"],
    "dnsSearchDomains": ["example.org"],
    "extraHosts": [{"hostname": "db", "ipAddress": "10.0.0.3"}],
    "dockerSecurityOptions": ["no-new-privileges"],
    "interactive": False,
    "pseudoTerminal": False,
    "dockerLabels": {"a": "b", "empty": ""},
    "ulimits": [{"name": "nofile", "softLimit": 1024, "hardLimit": 4096}],
    "logConfiguration": {"logDriver": "json-file", "options": {"max-size": "1m"}, "secretOptions": []},
    "healthCheck": {"command": ["CMD-SHELL", "true"], "interval": 5, "timeout": 2, "retries": 1, "startPeriod": 0},
    "systemControls": [{"namespace": "net.core.somaxconn", "value": "1024"}],
    "resourceRequirements": [{"type": "GPU", "value": "1"}],
    "firelensConfiguration": {"type": "fluentbit", "options": {}},
    "credentialSpecs": [],
}
