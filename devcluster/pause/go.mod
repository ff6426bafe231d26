module lora-operator/devcluster/pause

go 1.26.0
