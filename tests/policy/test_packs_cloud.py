"""The packs cloud, kubernetes and terraform: which rule refuses what, and what stays free."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.policy.shipped import said

CLOUD = {
    "aws-delete": [
        "aws ec2 terminate-instances --instance-ids i-1",
        "aws --profile prod --region eu-west-1 rds delete-db-instance --db-instance-identifier x",
        "aws --output=json dynamodb delete-table --table-name t",
        "AWS_PROFILE=prod sudo -E aws eks delete-cluster --name c",
        "aws ecr batch-delete-image --repository-name r --image-ids imageTag=x",
        "aws cloudformation delete-stack --stack-name s",
        "bash -c 'aws logs delete-log-group --log-group-name g'",
        "aws ec2 deregister-image --image-id a",
        "aws kms schedule-key-deletion --key-id k",
        "echo u | xargs -n1 aws sqs purge-queue --queue-url",
    ],
    "aws-stop": ["aws ec2 stop-instances --instance-ids i", "aws cloudtrail stop-logging --name t"],
    "aws-scale-to-zero": ["aws ecs update-service --desired-count 0 --service s"],
    "aws-s3-delete": ["aws s3 rb s3://b", "aws s3 rb s3://b --force"],
    "aws-s3-delete-objects": [
        "aws s3 rm s3://b --recursive",
        "aws s3 rm --recursive --exclude '*' s3://b",
        "aws --endpoint-url http://h s3 rm s3://b/p --recurs",
    ],
    "aws-s3-sync-delete": ["aws s3 sync . s3://b --delete"],
    "aws-iam": ["aws iam create-access-key --user-name u", "aws iam put-user-policy --user-name u --policy-name p"],
    "aws-open": ["aws s3api put-bucket-policy --bucket b --policy p", "aws lambda add-permission --function-name f"],
    "aws-public-acl": [
        "aws s3 cp a s3://b --acl public-read",
        "aws s3api put-object --acl=public-read-write --bucket b",
    ],
    "aws-credentials": ["aws secretsmanager get-secret-value --secret-id s", "aws sts assume-role --role-arn r"],
    "aws-secrets-change": [
        "aws secretsmanager put-secret-value --secret-id s",
        "aws route53 change-resource-record-sets",
    ],
    "aws-parameter-secrets": ["aws ssm get-parameters --names a --with-decryption"],
    "aws-remote-command": ["aws ssm send-command --document-name d", "aws ssm start-session --target i"],
    "eks-delete": ["eksctl delete cluster --name c", "npx serverless remove"],
    "gcloud-delete": [
        "gcloud compute instances delete vm -q",
        "gcloud --project p compute --zone z disks delete d",
        "gcloud beta sql instances delete s",
        "gcloud artifacts docker images delete i",
        "gcloud projects delete p --quiet",
    ],
    "gcloud-stop": ["gcloud compute instances stop vm", "gcloud alpha services disable run"],
    "gcloud-iam": [
        "gcloud projects add-iam-policy-binding p --member m --role r",
        "gcloud iam service-accounts keys create k",
    ],
    "gcloud-iam-change": ["gcloud iam roles create r", "gcloud iam service-accounts create s"],
    "gcloud-credentials": ["gcloud auth print-access-token", "gcloud secrets versions access latest --secret s"],
    "gcloud-open-firewall": ["gcloud compute firewall-rules create r --allow tcp"],
    "gcs-delete": ["gsutil rm gs://b/o", "gsutil -m rm -r gs://b", "gsutil rb gs://b"],
    "gcs-storage-delete": ["gcloud storage rm --recursive gs://b"],
    "gcs-sync-delete": ["gsutil rsync -d -r a gs://b"],
    "gcs-open": ["gsutil iam ch allUsers:objectViewer gs://b"],
    "bigquery-delete": ["bq rm -f d.t", "bq --location EU rm -r -f d"],
    "rclone-delete": ["rclone purge r:b", "rclone --config c delete r:b/x"],
    "rclone-sync-delete": ["rclone sync . r:b"],
    "azure-delete": [
        "az group delete --name g --yes",
        "az --subscription s vm delete -g g -n v",
        "az storage blob delete-batch -s c",
        "az acr repository untag -n r --image i",
        "az keyvault purge -n v",
    ],
    "azure-copy-delete": ["azcopy remove --recursive u", "azcopy rm u"],
    "azure-sync-delete": ["azcopy sync a u --delete-destination=true", "azcopy sync a u --delete-destination true"],
    "azure-stop": ["az vm stop -g g -n v", "az webapp restart -g g -n w"],
    "azure-iam": ["az role assignment create --assignee a", "az ad sp create-for-rbac -n x"],
    "azure-credentials": ["az account get-access-token", "az storage container generate-sas -n c"],
    "azure-keys": ["az storage account keys list -n a"],
    "azure-vault-secrets": ["az keyvault secret show -n s --vault-name v"],
    "azure-remote-command": ["az vm run-command invoke -g g -n v --command-id RunShellScript"],
}
CLOUD_FREE = [
    "aws ec2 describe-instances",
    "aws s3 ls",
    "aws s3 cp a s3://b",
    "aws s3 rm s3://b --recursive --dryrun",
    "aws s3 sync . s3://b",
    "aws ec2 terminate-instances --dry-run --instance-ids i",
    "aws sts get-caller-identity",
    "aws ecr get-login-password",
    "aws lambda invoke --function-name f out",
    "gcloud compute instances list",
    "gcloud config set project delete-me",
    "gcloud builds submit",
    "gsutil ls gs://b",
    "gsutil cp a gs://b",
    "bq ls",
    "az vm list -o table",
    "az account show",
    "az group create -n delete -l l",
    "rg 'aws s3 rm' docs",
]

KUBERNETES = {
    "kubernetes-delete": [
        "kubectl delete ns x",
        "kubectl -n x delete deployment web",
        "kubectl --context=c delete pvc data --wait=false",
        "kubectl delete sts/db",
        "kubectl delete pod,svc web",
        "kubectl delete NS x",
        "kubectl delete namespace x --dry-run=none",
        "oc delete project x",
        "timeout 9 kubectl delete crd a.b",
        "sudo kubectl delete secret s",
    ],
    "kubernetes-delete-many": [
        "kubectl delete pods --all",
        "kubectl delete po -A -l a=b",
        "kubectl delete pod --selector=a",
    ],
    "kubernetes-delete-files": [
        "kubectl delete -f a.yaml",
        "kubectl delete -k d",
        "kustomize build d | kubectl delete -f -",
    ],
    "kubernetes-delete-at-once": [
        "kubectl delete pod x --force",
        "kubectl replace --force -f a",
        "kubectl apply --prune -f d",
    ],
    "kubernetes-node": ["kubectl drain n", "kubectl cordon n", "kubectl taint nodes n a=b:NoExecute"],
    "openshift-admin": ["oc adm policy add-scc-to-user privileged x", "oc -n x adm drain n"],
    "kubernetes-scale-to-zero": ["kubectl scale --replicas=0 deploy/x", "kubectl scale deploy x --replicas 0 -n y"],
    "kubernetes-patch-to-zero": ['kubectl -n x patch sts db --patch \'{"spec": {"replicas": 0}}\''],
    "kubernetes-rbac": [
        "kubectl create clusterrolebinding x --user y",
        "kubectl create token t",
        "kubectl edit role r",
    ],
    "kubernetes-namespace-rules": ["kubectl label namespace x a=b"],
    "kubernetes-impersonate": [
        "kubectl --as=root get pods",
        "kubectl get pods --as-group g",
        "helm list --kube-as-user x",
    ],
    "kubernetes-secrets": [
        "kubectl get secret s -o yaml",
        "kubectl get secrets -ojson",
        "kubectl -n x get secret/s --output jsonpath={.a}",
    ],
    "kubernetes-config-credentials": ["kubectl config view --raw", "oc whoami -t"],
    "kubernetes-node-shell": ["kubectl debug node/n -it --image i"],
    "kubernetes-privileged": [
        "kubectl run x --image i --privileged",
        'kubectl run x --overrides=\'{"spec":{"hostNetwork":true}}\'',
    ],
    "kubernetes-open": ["kubectl proxy --address 0.0.0.0", "kubectl port-forward --address=0.0.0.0 svc/x 80"],
    "kubernetes-finalizers": ['kubectl patch pvc x -p \'{"metadata":{"finalizers":[]}}\''],
    "kubernetes-production": ["kubectl --context prod apply -f a", "kubectl exec -n production web -- id"],
    "kubernetes-use-production": ["kubectl config use-context eu-prod-1"],
    "helm-uninstall": ["helm uninstall x", "helm -n a --kube-context c delete x", "helm rollback x 3"],
    "helm-upgrade-force": ["helm upgrade x c --force", "helm upgrade --install x c --reset-values"],
    "helm-production": ["helm upgrade x c --kube-context=prod"],
    "cluster-tools": ["etcdctl del '' --prefix", "velero backup delete b", "argocd app delete a"],
}
KUBERNETES_FREE = [
    "kubectl get pods -A",
    "kubectl delete pod web-1",
    "kubectl delete pods/web-1 -n x",
    "kubectl delete ns x --dry-run=client",
    "kubectl delete -f a.yaml --dry-run=server",
    "kubectl apply -f a.yaml",
    "kubectl create namespace x",
    "kubectl rollout restart deploy/x",
    "kubectl logs -f x",
    "kubectl exec -it web -- sh",
    "kubectl scale deploy/x --replicas=2",
    "kubectl get secrets",
    "kubectl describe secret s",
    "kubectl --context=prod get pods",
    "kubectl -n products apply -f a.yaml",
    "helm upgrade --install x c",
    "helm template c",
    "grep 'kubectl delete ns' notes",
]

TERRAFORM = {
    "terraform-destroy": [
        "terraform destroy",
        "terraform -chdir=d destroy -auto-approve",
        "tofu destroy -target a",
        "terragrunt run-all destroy",
    ],
    "terraform-apply-destroy": ["terraform apply -destroy", "terraform apply --destroy -var a=b"],
    "terraform-apply-unasked": ["terraform apply -auto-approve", "terraform apply -var 'a=b' --auto-approve=true"],
    "terraform-apply-plan": ["terraform apply plan.out", "terraform apply -parallelism 3 tfplan"],
    "terraform-apply-all": ["terragrunt run-all apply", "terragrunt run --all apply"],
    "terraform-apply-answered": ["yes | terraform apply", "echo yes | terraform apply", "printf 'yes\\n' | pulumi up"],
    "terraform-apply-environment": ["TF_CLI_ARGS_apply=-auto-approve terraform apply"],
    "terraform-state": ["terraform state rm a.b", "terraform state mv a b", "tofu state push f"],
    "terraform-taint": ["terraform taint a.b", "terraform refresh", "terraform import a.b i"],
    "terraform-unlock": ["terraform force-unlock 1", "terraform force-unlock -force 1"],
    "terraform-no-lock": ["terraform apply -lock=false"],
    "terraform-workspace-delete": ["terraform workspace delete x"],
    "terraform-init-state": ["terraform init -migrate-state"],
    "pulumi-destroy": ["pulumi destroy", "pulumi -C d --stack s destroy -y", "pulumi cancel"],
    "pulumi-unasked": ["pulumi up --yes", "pulumi up -y", "pulumi refresh -y"],
    "pulumi-state": ["pulumi stack rm s", "pulumi state delete u"],
    "infrastructure-secrets": ["pulumi config --show-secrets"],
    "cdk-destroy": ["cdk destroy", "npx cdk destroy s"],
    "cdk-unasked": ["cdk deploy --require-approval=never"],
}
TERRAFORM_FREE = [
    "terraform init",
    "terraform plan -out plan.out",
    "terraform plan -destroy",
    "terraform apply -auto-approve=false",
    "terraform validate",
    "terraform state list",
    "terraform output -json",
    "terraform workspace select dev",
    "tofu fmt",
    "pulumi preview",
    "cdk diff",
]

CASES = {
    "cloud": (CLOUD, CLOUD_FREE),
    "kubernetes": (KUBERNETES, KUBERNETES_FREE),
    "terraform": (TERRAFORM, TERRAFORM_FREE),
}


_KUBE = st.lists(
    st.sampled_from(["-n x", "--context c", "--kubeconfig=f", "-v 6", "--wait=false", "-o name"]), max_size=3
)


@given(_KUBE, _KUBE, _KUBE)
def test_a_namespace_is_found_among_any_options(before: list[str], between: list[str], behind: list[str]) -> None:
    words = ["kubectl", *before, "delete", *between, "ns", *behind, "x"]
    assert said("kubernetes", " ".join(words)) == "kubernetes-delete"
