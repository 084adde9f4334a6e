"""Typical sets of values, each a patch on LEAST."""

from tests.chart.rendering import GONE, KEY, Values

MONITORED: Values = {
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "runbookUrl": "https://docs.example/runbook.md"},
    "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Taskgate"}},
}
RESTRICTED: Values = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
"""What PodSecurity's restricted level requires of every container, including those that the chart does not define."""
TRYING: Values = {"valkey": {"enabled": True}, "config": {"redis": {"url": GONE}}}

MATRIX: dict[str, Values] = {
    "least": {},
    "trying": TRYING,
    "monitored": MONITORED,
    "autoscaled": {"autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 7}},
    "scaled from outside": {"replicaCount": None},
    "scaled on lag": {
        "autoscaling": {
            "enabled": True,
            "by": "eventLoopLag",
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 600}},
        },
        "liveReload": True,
    },
    "scaled on requests": {"autoscaling": {"enabled": True, "by": "requests", "target": 800}},
    "scaled on metrics of one's own": {
        "autoscaling": {
            "enabled": True,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 70}},
                }
            ],
        },
    },
    "TLS and a proxy": {
        "config": {
            "redis": {"url": "rediss://redis.data:6380/0", "username": "taskgate"},
            "upstream": {"proxy_url": "http://proxy.egress:3128", "proxy_username": "taskgate"},
        },
        "secrets": {
            "redisPassword": {"name": "redis", "key": "password"},
            "redisClientCert": {"name": "redis-client", "cert": "tls.crt", "key": "tls.key"},
            "proxyPassword": {"name": "proxy", "key": "password"},
        },
        "trustedCAs": {
            "redis": {"secret": "redis-client", "key": "ca.crt"},
            "upstream": {"configMap": "company-ca", "key": "bundle.pem"},
        },
    },
    "on OpenShift": {
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
        "networkPolicy": {
            "dns": {
                "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openshift-dns"}}}],
                "ports": [53, 5353],
            }
        },
    },
    "all of a platform team's": {
        "namespaceOverride": "push",
        "commonLabels": {"team": "push", "app.kubernetes.io/part-of": "shop"},
        "image": {"registry": "registry.example:5000", "repository": "push/taskgate", "tag": "1.2.3"},
        "revisionHistoryLimit": 2,
        "podDisruptionBudget": {"minAvailable": "50%"},
        "deploymentAnnotations": {"reloader.example/ignore": "true"},
        "initContainers": [{"name": "wait", "image": "registry.example/wait:1", "securityContext": RESTRICTED}],
        "extraContainers": [
            {
                "name": "proxy",
                "image": "registry.example/proxy:1",
                "ports": [{"containerPort": 3128}],
                "securityContext": RESTRICTED,
            }
        ],
        "extraObjects": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-extra"}},
            'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ include "taskgate.fullname" . }}-text\n',
        ],
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["redis.data"]}],
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["10.0.0.10"], "options": [{"name": "ndots", "value": "1"}]},
        "runtimeClassName": "gvisor",
        "podSpec": {"schedulerName": "own", "securityContext": {"supplementalGroups": [20]}},
        "service": {
            "type": "LoadBalancer",
            "nodePort": 30080,
            "ipFamilyPolicy": "PreferDualStack",
            "ipFamilies": ["IPv6", "IPv4"],
            "externalTrafficPolicy": "Local",
            "trafficDistribution": "PreferSameZone",
            "loadBalancerClass": "example.org/inside",
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
        },
        "serviceMonitor": {
            "enabled": True,
            "scrapeTimeout": "10s",
            "relabelings": [{"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}],
            "metricRelabelings": [{"action": "drop", "regex": "python_.*", "sourceLabels": ["__name__"]}],
        },
        "config": {
            "telemetry": {"otlp_endpoint": "http://collector.traces:4318"},
            "apps": {"shop": {"base_url": "https://upstream.example:8443"}},
        },
        "networkPolicy": {
            "traces": {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "traces"}}}]},
            "apiServer": {"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}], "ports": [6443]},
        },
        "rbac": {"issuerDiscovery": True},
        "liveReload": True,
        "configCheck": {"activeDeadlineSeconds": 300},
    },
    "single": {
        "replicaCount": 1,
        "podDisruptionBudget": {"enabled": False},
        "topologySpread": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "config": {"telemetry": {"metrics_port": None}},
        "preStopSleepSeconds": 0,
        "serviceAccount": {"create": False},
    },
    "many apps": {
        "config": {
            "apps": {f"app-{number}.x_y": {"sdkappid": 20_000_000 + number, "admin": "root"} for number in range(12)}
            | {"shop": {"sdkappid": 4_294_967_295, "calls": 3, "region": "china"}},
            "callers": {"batch": {"keys": ["1" * 64, "2" * 64], "apps": ["shop", "app-3.x_y"], "weight": 0.25}},
        },
        "secrets": {"apps": {f"app-{number}.x_y": {"name": "keys", "key": f"k{number}"} for number in range(12)}},
    },
    "secret from the environment": {
        "config": {"apps": {"shop": {"secret_env": "SHOP_SECRET"}}},
        "secrets": {"apps": {"shop": GONE}},
        "env": [{"name": "SHOP_SECRET", "valueFrom": {"secretKeyRef": {"name": "apps", "key": "shop"}}}],
    },
    "sentinel": {
        "config": {"redis": {"url": "redis://a.data:26379,b.data:26380", "mode": "sentinel", "sentinel_master": "m"}},
        "secrets": {
            "redisPassword": {"name": "redis", "key": "password"},
            "sentinelPassword": {"name": "redis", "key": "sentinel"},
        },
        "networkPolicy": {"redis": {"to": [{"namespaceSelector": {"matchLabels": {"name": "data"}}}]}},
    },
    "cluster": {
        "config": {
            "redis": {"url": "rediss://a.data:6379,b.data:6379,c.data:6379", "mode": "cluster", "prefix": "tg"},
            "budget": {"calls": 5, "on_redis_down": "share", "wait_max_s": 120.5},
        },
        "replicaCount": 4,
        "extraVolumes": [{"name": "ca", "configMap": {"name": "redis-ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/redis-ca", "readOnly": True}],
        "env": [{"name": "SSL_CERT_FILE", "value": "/etc/redis-ca/ca.crt"}],
    },
    "from outside": {
        "service": {"type": "LoadBalancer", "port": 8080, "annotations": {"a": "b"}},
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "hosts": ["taskgate.example"],
            "tls": [{"secretName": "tls", "hosts": ["taskgate.example"]}],
            "annotations": {"nginx.ingress.kubernetes.io/proxy-read-timeout": "60"},
        },
        "httpRoute": {
            "enabled": True,
            "parentRefs": [{"name": "public", "namespace": "gateways"}],
            "hostnames": ["taskgate.example"],
        },
        "networkPolicy": {
            "ingress": [{"namespaceSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}],
            "metrics": [],
            "https": {"ports": [443, 8443], "to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]},
            "extraEgress": [{"ports": [{"port": 4318}]}],
        },
    },
    "placed": {
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "podLabels": {"team": "push", "app.kubernetes.io/name": "other"},
        "podAnnotations": {"note": "1"},
        "imagePullSecrets": [{"name": "registry"}],
        "image": {"repository": "registry.example/taskgate", "digest": "sha256:" + KEY},
        "fullnameOverride": "tg-taskgate",
        "terminationGracePeriodSeconds": 600,
        "rbac": {"issuerDiscovery": True},
    },
    "everything of the configuration": {
        "config": {
            "budget": {"window_s": 1.5, "wait_max_s": 60, "waiting_max": 10, "redis_grace_s": 0},
            "cache": {"memory_bytes": 2**31, "fresh_s": 0.5, "settled_s": 31_536_000},
            "upstream": {"answer_max_bytes": 16_777_216, "signature_valid_s": 1_576_800_000, "order_by": "camel"},
            "query": {"since": "-P7D", "until": "2030-01-01", "range_max_days": 20_000},
            "server": {"host": "::", "port": 18000, "drain_s": 12.25, "log_level": "debug"},
        },
    },
}
